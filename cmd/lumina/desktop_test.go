package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newDesktop makes a desktop that the test ends with.
func newDesktop(t testing.TB, name, image string, args ...string) (mac, dir string) {
	t.Helper()
	return createDesktop(t, name, append([]string{"--iso", image, "--disk-size", "64MB"}, args...)...)
}

func createDesktop(t testing.TB, name string, args ...string) (mac, dir string) {
	t.Helper()
	r := lumina(t, append([]string{"desktop", "create", name}, args...)...).succeeded(t)
	var rows []struct {
		ID  string `json:"id"`
		MAC string `json:"macAddress"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("create printed %q", r.stdout)
	}
	t.Cleanup(func() {
		lumina(t, "desktop", "stop", "--force", name).succeeded(t)
		lumina(t, "desktop", "rm", name).succeeded(t)
		nothingLeft(t)
	})
	return rows[0].MAC, filepath.Join(home, "desktop-vms", rows[0].ID)
}

// A real installer, driven by what is on its screen.
func TestDesktopInstaller(t *testing.T) {
	const name = "installer"
	newDesktop(t, name, installer(t), "--memory", "1GB")
	lumina(t, "desktop", "boot", name, "--headless", "--detach").succeeded(t)
	var f font
	waitScreen(t, name, "the installer's first page", 10*time.Minute, func(s *screen) (ok bool) {
		f, ok = s.learn("Choose the language to be used for the installation process. The selected language will also be the default language for the installed system.")
		return ok
	})
	waitScreen(t, name, "English selected", 3*time.Minute, func(s *screen) bool { return strings.Contains(s.selected(f), "nglish") })

	// What a failure would say of it.
	said := desktopStates(t, home)
	for _, want := range []string{"installer: 2 CPUs, running: true, silent: false, up ", `"loader"`, "Booting in blind mode", "QEMU's thread "} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what is said of it: %s", want, said)
		}
	}

	t.Run("a browser", func(t *testing.T) { testBrowser(t, name, f) })

	lumina(t, "desktop", "key", name, "enter").succeeded(t)
	waitScreen(t, name, "the second page", 3*time.Minute, func(s *screen) bool { return f.shows(s, "Select your location") })
	lumina(t, "desktop", "type", name, "c").succeeded(t)
	waitScreen(t, name, "Canada selected", 3*time.Minute, func(s *screen) bool { return strings.Contains(s.selected(f), "Canada") })
	lumina(t, "desktop", "key", name, "enter").succeeded(t)
	waitScreen(t, name, "the third page", 3*time.Minute, func(s *screen) bool { return f.shows(s, "Configure the keyboard") })
	// The installer has no pointer; that there is a screen for it is what shows.
	lumina(t, "desktop", "click", name, "100", "100").succeeded(t)
	if r := lumina(t, "desktop", "click", name, "100", "10000"); r.code != exitFailure || !strings.Contains(r.stderr, "not on the screen") {
		t.Errorf("a click beside the screen: %d %s", r.code, r.stderr)
	}
}

// starts is what testdata/starts.c says.
func starts(t testing.TB, name string, args ...string) string {
	t.Helper()
	serial := filepath.Join(t.TempDir(), "serial")
	lumina(t, append([]string{"desktop", "boot", name, "--headless", "--serial", serial, "--timeout", "2m"}, args...)...).succeeded(t)
	_, said, _ := strings.Cut(string(readFile(t, serial)), "starts: ")
	said, _, _ = strings.Cut(said, "\r")
	return said
}

// What a desktop is stays over its boots, whatever ends them.
func TestDesktopBoots(t *testing.T) {
	const name = "starts"
	image := startsISO(t)
	mac, dir := newDesktop(t, name, image, "--memory", "256MB", "--tpm")
	want := func(n string) string { return n + " mac: " + strings.ReplaceAll(mac, ":", "") + " tpm: 1 secure: 0" }
	for _, n := range []string{"1", "2"} {
		if got := starts(t, name); got != want(n) {
			t.Errorf("the guest says %q, want %q", got, want(n))
		}
	}
	t.Run("twice at once", func(t *testing.T) {
		lumina(t, "desktop", "boot", name, "--headless", "--detach", "--iso", "none").succeeded(t)
		for _, args := range [][]string{{"boot", name, "--headless"}, {"boot", name, "--headless", "--detach"}, {"rm", name},
			{"rm", "--now", name}, {"set", name, "--cpus", "1"}, {"rename", name, "other"}, {"clone", name, "other"}} {
			r := lumina(t, append([]string{"desktop"}, args...)...)
			if r.code != exitFailure || !strings.Contains(r.stderr, `desktop "starts": it is running already`) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("%q: %d %s", args, r.code, r.stderr)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, "socket")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		lumina(t, "desktop", "reset", name).succeeded(t)
		if row := desktopRowOf(t, name); !row.Running || row.Silent || row.CPUSeconds <= 0 || row.MemoryUsed < 1<<20 || row.DiskUsed < 1<<16 || row.LastBooted == nil {
			t.Errorf("what it takes: %+v", row)
		}
	})
	t.Run("killed", func(t *testing.T) {
		for _, p := range processes(t) {
			pid, line, _ := strings.Cut(p, " ")
			if n, err := strconv.Atoi(pid); err == nil && strings.Contains(line, superviseDesktopCommand) {
				if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		nothingLeft(t)
		if r := lumina(t, "desktop", "screenshot", name, "-"); r.code != exitFailure || !strings.Contains(r.stderr, "it is not running") {
			t.Errorf("a screenshot of it: %d %s", r.code, r.stderr)
		}
		if got := starts(t, name); got != want("3") {
			t.Errorf("the guest says %q, want %q", got, want("3"))
		}
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		cmd := command("desktop", "boot", name, "--headless", "--iso", "none")
		started(t, `"running":true`, cmd)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code := waitCode(t, cmd); code != 128+int(syscall.SIGINT) {
			t.Errorf("exit code %d", code)
		}
		nothingLeft(t)
	})
	t.Run("timeout", func(t *testing.T) {
		if r := lumina(t, "desktop", "boot", name, "--headless", "--iso", "none", "--timeout", "1s"); r.code != exitTimeout {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	t.Run("a clone with common devices", func(t *testing.T) {
		// It has what the firmware has kept, and is another machine; it has devices that
		// Windows and the firmware have drivers for, and a second ISO.
		lumina(t, "desktop", "clone", name, "clone").succeeded(t)
		t.Cleanup(func() { lumina(t, "desktop", "rm", "--now", "clone").succeeded(t) })
		lumina(t, "desktop", "set", "clone", "--cpus", "1", "--disk-size", "65MB", "--drivers", image).succeeded(t)
		row := desktopRowOf(t, "clone")
		if row.CPUs != 1 || row.DiskSize != 65<<20 || row.Drivers != image || row.MAC == mac || row.Running {
			t.Errorf("it is %+v", row)
		}
		manifest := filepath.Join(row.Path, "manifest.json")
		writeFile(t, manifest, bytes.Replace(readFile(t, manifest), []byte(`"osFamily": "linux"`), []byte(`"osFamily": "windows"`), 1))
		// The firmware has no driver for that NIC.
		if got := starts(t, "clone"); got != "4 mac: 000000000000 tpm: 1 secure: 0" {
			t.Errorf("the guest says %q", got)
		}
	})
	t.Run("removed and restored", func(t *testing.T) {
		lumina(t, "desktop", "rm", name).succeeded(t)
		if r := lumina(t, "desktop", "boot", name); r.code != exitFailure || !strings.Contains(r.stderr, "no such desktop") {
			t.Errorf("booting it: %d %s", r.code, r.stderr)
		}
		lumina(t, "desktop", "restore", name).succeeded(t)
		if row := desktopRowOf(t, name); row.MAC != mac || row.Path != dir {
			t.Errorf("it is %+v", row)
		}
	})
	t.Run("a Mac's bundle", func(t *testing.T) {
		manifest := filepath.Join(dir, "manifest.json")
		b := bytes.Replace(readFile(t, manifest), []byte(`"osFamily": "linux"`), []byte(`"osFamily": "macOS"`), 1)
		writeFile(t, manifest, b)
		for _, args := range [][]string{{"--headless"}, {"--headless", "--detach"}} {
			r := lumina(t, append([]string{"desktop", "boot", name}, args...)...)
			if r.code != exitFailure || !strings.Contains(r.stderr, "it does not run macOS") || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("%q: %d %s", args, r.code, r.stderr)
			}
		}
	})
}

// desktopRowOf is what desktop ls says of a desktop.
func desktopRowOf(t testing.TB, name string) desktopRow {
	t.Helper()
	var rows []desktopRow
	r := lumina(t, "desktop", "ls", "--json").succeeded(t)
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
		t.Fatalf("desktop ls printed %q: %v", r.stdout, err)
	}
	i := slices.IndexFunc(rows, func(row desktopRow) bool { return row.Name == name })
	if i < 0 {
		t.Fatalf("desktop ls has no %q: %q", name, r.stdout)
	}
	return rows[i]
}

// With Secure Boot the firmware does not start an unsigned program, that of the disk
// here, and starts a signed one: Debian's first loader, whose key Microsoft has signed,
// and which starts the second.
func TestDesktopSecureBoot(t *testing.T) {
	needsProgram(t)
	const name = "secure"
	signed := map[string][]byte{
		"BOOTX64.EFI": readFile(t, "/usr/lib/shim/shimx64.efi.signed"),
		"GRUBX64.EFI": readFile(t, "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
	}
	_, dir := newDesktop(t, name, efiISO(t, signed), "--memory", "256MB", "--cpus", "1", "--secure-boot", "--network", "none")
	disk, err := os.OpenFile(filepath.Join(dir, "disk.img"), os.O_WRONLY, 0)
	if err == nil {
		_, err = disk.WriteAt(readFile(t, efiImage(t, map[string][]byte{"BOOTX64.EFI": startsProgram(t)})), 0)
	}
	if err == nil {
		err = disk.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	serial := filepath.Join(t.TempDir(), "serial")
	lumina(t, "desktop", "boot", name, "--headless", "--detach", "--serial", serial).succeeded(t)
	var said string
	for deadline := time.Now().Add(4 * time.Minute); !strings.Contains(said, "GNU GRUB") && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		said = string(readFile(t, serial))
	}
	if !regexp.MustCompile(`failed to load [^\r\n]*: Access Denied`).MatchString(said) || strings.Contains(said, "starts: ") {
		t.Errorf("the unsigned program was not refused:\n%q", said)
	}
	if !strings.Contains(said, "GNU GRUB") {
		t.Errorf("the signed one was not started:\n%q", said)
	}
}

func TestDesktopCapturesSerial(t *testing.T) {
	const name = "serial"
	newDesktop(t, name, installer(t), "--memory", "1GB")
	cmd := command("desktop", "boot", name, "--capture-serial", "--timeout", "2m")
	started(t, "Command line: console=ttyS0", cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = waitCode(t, cmd)
	nothingLeft(t)
}

func TestDesktopRefusesMedia(t *testing.T) {
	amd64, arm64 := startsISO(t), efiISO(t, map[string][]byte{"BOOTAA64.EFI": noProgram(0xAA64)})
	content := readFile(t, amd64)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		writeFile(t, name, content)
		return name
	}
	pipe := filepath.Join(dir, "pipe.iso")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	other := strings.Repeat("0123456789abcdef", 4)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"x86 for arm64":       {[]string{amd64, "--arch", "arm64"}, "it is for amd64 (BOOTX64.EFI), the guest is arm64"},
		"arm64 for x86":       {[]string{arm64, "--arch", "amd64"}, "it is for arm64 (BOOTAA64.EFI), the guest is amd64"},
		"truncated":           {[]string{file("truncated", content[:len(content)/2])}, "truncated"},
		"empty":               {[]string{file("empty", nil)}, "it is empty"},
		"no ISO":              {[]string{file("text", bytes.Repeat([]byte("text\n"), 1<<14))}, "not an ISO 9660 image"},
		"a directory":         {[]string{dir}, "is a directory: want a file"},
		"a pipe":              {[]string{pipe}, "is a pipe: want a file"},
		"a pipe of drivers":   {[]string{amd64, "--drivers", pipe}, "is a pipe: want a file"},
		"a pipe for a disk":   {[]string{amd64, "--disk", pipe}, "is a pipe: want a file"},
		"another digest":      {[]string{amd64, "--sha256", other}, "its SHA-256 is " + digest},
		"a placeholder":       {[]string{amd64, "--sha256", strings.Repeat("0", 64)}, "placeholder"},
		"not the catalogue's": {[]string{amd64, "--os", "debian-12-amd64"}, "its SHA-256 is " + digest + ", not 013f5b44670d81280b5b1bc02455842b250df2f0c6763398feb69af1a805a14f, which the catalogue has for Debian 12"},
	} {
		t.Run(name, func(t *testing.T) {
			r := lumina(t, append([]string{"desktop", "create", "refused", "--iso"}, tt.args...)...)
			if r.code != exitUsage || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
				t.Errorf("exit code %d, %q, %q; want %q", r.code, r.stdout, r.stderr, tt.want)
			}
			if entries, _ := filepath.Glob(filepath.Join(home, "desktop-vms", "[^.]*")); len(entries) > 0 {
				t.Errorf("it left %q", entries)
			}
		})
	}
	newDesktop(t, "verified", amd64, "--os", "debian-12-amd64", "--sha256", digest)
	newDesktop(t, "forced", arm64, "--arch", "amd64", "--force")
	if r := lumina(t, "doctor", "--iso", arm64); r.code != 1 || !strings.Contains(r.stdout, "it is for arm64 (BOOTAA64.EFI), this host is amd64") {
		t.Errorf("doctor: %d %s", r.code, r.stdout)
	}
	if r := lumina(t, "doctor", "--iso", filepath.Join(dir, "empty")); r.code != 2 {
		t.Errorf("doctor, an empty file: %d %s", r.code, r.stdout)
	}
	for _, args := range [][]string{{"mac"}, {"mac", "--ipsw", "none.ipsw"}} {
		r := lumina(t, append([]string{"desktop", "install-macos"}, args...)...)
		if r.code != exitFailure || !strings.Contains(r.stderr, "macOS runs in VMs of a Mac with Apple silicon only, and this is linux/") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("install-macos %q: %d %s", args, r.code, r.stderr)
		}
	}
	if r := lumina(t, "desktop", "install-macos"); r.code != exitUsage {
		t.Errorf("install-macos without a name: %d %s", r.code, r.stderr)
	}
}

func TestDesktopRefusesDisks(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "d.qcow2")
	lumina(t, "images", "export", "debian", "--disk-size", "64MB", "-o", disk).succeeded(t)
	content := readFile(t, disk)
	file := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		writeFile(t, name, content)
		return name
	}
	for name, tt := range map[string]struct {
		want string
		code int
		args []string
	}{
		"neither disk nor ISO": {"give --iso with an installation ISO, or --disk", exitUsage, nil},
		"no such file":         {"disk: open ", exitUsage, []string{"--disk", filepath.Join(dir, "none")}},
		"x86 for arm64":        {"it is for amd64 (BOOTX64.EFI), the guest is arm64", exitUsage, []string{"--disk", disk, "--arch", "arm64"}},
		"truncated":            {"truncated", exitUsage, []string{"--disk", file("truncated", content[:len(content)/2])}},
		"empty":                {"neither a qcow2 nor a raw disk", exitUsage, []string{"--disk", file("empty", nil)}},
		"an ISO":               {"no partition table", exitUsage, []string{"--disk", startsISO(t)}},
		"too small":            {"does not fit into a disk of 16 MB", exitFailure, []string{"--disk", disk, "--disk-size", "16MB"}},
		"another digest":       {"its SHA-256 is ", exitUsage, []string{"--disk", disk, "--sha256", strings.Repeat("0123456789abcdef", 4)}},
		"not the catalogue's":  {"the catalogue's digest of debian-12-amd64 is its ISO's", exitUsage, []string{"--disk", disk, "--os", "debian-12-amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := lumina(t, append([]string{"desktop", "create", "refused"}, tt.args...)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") != 1 || (r.stdout == "") != (tt.code == exitUsage) {
				t.Errorf("exit code %d, %q, %q; want %d, %q", r.code, r.stdout, r.stderr, tt.code, tt.want)
			}
			if entries, _ := filepath.Glob(filepath.Join(home, "desktop-vms", "[^.]*")); len(entries) > 0 {
				t.Errorf("it left %q", entries)
			}
		})
	}
}
