package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

// windowsPackages are what the guest of TestDesktopForWindows looks and plays its tone
// with, beside Debian's kernel. A static busybox aborts in an initial RAM disk.
var windowsPackages = []string{"busybox", "alsa-utils", "libasound2", "libasound2-data"}

// windowsModules are the kernel's that it needs, a codec's before the controller's, which
// looks for it once.
var windowsModules = []string{"efivarfs", "nvme", "snd-hda-codec-generic", "snd-hda-intel"}

// toneRate is that of the tone that the guest plays, in Hz.
const toneRate = 440

// A desktop for Windows 11, as it is made when nothing else is asked for, has what that
// one's installer looks for (Microsoft's "Windows 11 requirements"): UEFI with Secure Boot
// on, a TPM 2.0, 2 CPUs with what its kernel needs, 4 GB of memory, a disk of 64 GB on a
// controller and a sound card that it has drivers for. The installer itself cannot be had
// here: a Linux looks, Debian's stock kernel, which Debian's signed loaders start. What
// its driver for HD Audio plays is heard in the app.
func TestDesktopForWindows(t *testing.T) {
	needsProgram(t)
	a := newApp(t, nil)
	iso := windowsCheckISO(t)
	sum := sha256.Sum256(readFile(t, iso))
	a.lumina(t, "desktop", "create", "win", "--os-variant", "windows-11", "--iso", iso, "--sha256", hex.EncodeToString(sum[:]), "--network", "none").succeeded(t)
	serial := filepath.Join(t.TempDir(), "serial")
	a.lumina(t, "desktop", "boot", "win", "--headless", "--detach", "--serial", serial).succeeded(t)
	var said string
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(said, "check: done"); time.Sleep(100 * time.Millisecond) {
		if said = string(readFile(t, serial)); time.Now().After(deadline) {
			t.Fatalf("the guest does not come to an end: %.4000s", said)
		}
	}
	check := map[string]string{}
	for _, m := range regexp.MustCompile(`check: ([a-z ]+)=([^\r\n]*)`).FindAllStringSubmatch(said, -1) {
		check[m[1]] = strings.TrimSpace(m[2])
	}
	for what, want := range map[string]string{"secure boot": "1", "tpm": "2.0", "sound": "HDA-Intel - HDA Intel"} {
		if got := check[what]; got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for what, least := range map[string]int{"cpus": 2, "memory": 4096} {
		if got, err := strconv.Atoi(check[what]); err != nil || got < least {
			t.Errorf("%s: %q, want %d at least", what, check[what], least)
		}
	}
	if got, err := strconv.ParseInt(check["disk"], 10, 64); err != nil || got*512 < 64<<30 {
		t.Errorf("the disk has %q sectors", check["disk"])
	}
	if got := check["measured"]; len(got) != 64 || strings.Trim(got, "0") == "" {
		t.Errorf("the firmware has told the TPM %q of Secure Boot", got)
	}
	// CMPXCHG16b, LAHF, NX, SSE4.2 and POPCNT, which version 24H2 wants.
	for _, flag := range []string{"cx16", "lahf_lm", "nx", "sse4_2", "popcnt", "lm"} {
		if !slices.Contains(strings.Fields(check["flags"]), flag) {
			t.Errorf("the CPU has no %s: %s", flag, check["flags"])
		}
	}
	if check["module"] != "" || check["aplay"] != "" {
		t.Errorf("the guest says %q", said)
	}
	t.Run("its tone", func(t *testing.T) { hearTone(t, a, serial) })
}

// hearTone listens to the desktop as a page does, until what comes is the guest's tone.
func hearTone(t *testing.T, a *appPage, serial string) {
	d, err := desktop.Open(a.home, "win")
	if err != nil {
		t.Fatal(err)
	}
	origin, _, _ := strings.Cut(strings.TrimPrefix(a.url, "http://"), "/")
	ws, _, err := websocket.Dial(t.Context(), strings.Replace(a.url, "http", "ws", 1)+"api/desktops/"+d.Manifest.ID+"/sound",
		&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://" + origin}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	var format struct{ Rate, Channels int }
	_, b, err := ws.Read(t.Context())
	if err != nil || json.Unmarshal(b, &format) != nil || format.Rate != 48000 || format.Channels != 2 {
		t.Fatalf("the format is %q, %v", b, err)
	}
	// How far the waves of the tone are apart does not tell of its pauses, which a busy
	// host makes.
	want := float64(format.Rate) / toneRate
	var waves []float64
	var before int16
	at, last := 0, -1
	for end := time.Now().Add(2 * time.Minute); len(waves) < 2*toneRate; {
		if time.Now().After(end) {
			t.Fatalf("after two minutes %d waves were heard; the guest says %.2000s", len(waves), readFile(t, serial))
		}
		kind, b, err := ws.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary || len(b)%4 != 0 {
			t.Fatalf("%d bytes of sound, %v", len(b), err)
		}
		for ; len(b) > 0; b, at = b[4:], at+1 {
			left, right := int16(binary.LittleEndian.Uint16(b)), int16(binary.LittleEndian.Uint16(b[2:]))
			if left != right {
				t.Fatalf("left is %d and right %d of a tone that is in the middle", left, right)
			}
			if before < 0 && left >= 0 {
				if last >= 0 {
					waves = append(waves, float64(at-last))
				}
				last = at
			}
			before = left
		}
	}
	slices.Sort(waves)
	if got := waves[len(waves)/2]; math.Abs(got-want) > 1 {
		t.Errorf("the waves of the tone are %.1f samples long, want %.1f", got, want)
	}
}

// windowsCheckISO is an ISO whose guest is testdata/windows.sh.
func windowsCheckISO(t testing.TB) string {
	t.Helper()
	depends, err := exec.Command("apt-cache", "depends", "linux-image-amd64").Output()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Depends: (linux-image-([^ ]+-amd64))\n`).FindSubmatch(depends)
	if m == nil {
		t.Fatalf("Debian has no kernel: %q", depends)
	}
	packages, version := append([]string{string(m[1])}, windowsPackages...), string(m[2])
	// Names, sizes and digests: what was made of others is made anew.
	uris, err := exec.Command("apt-get", append([]string{"download", "--print-uris"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	shim, grub := readFile(t, "/usr/lib/shim/shimx64.efi.signed"), readFile(t, "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")
	script := readFile(t, "testdata/windows.sh")
	inputs := [][]byte{uris, shim, grub, script, []byte(windowsLoader), []byte(fmt.Sprint(windowsModules))}
	return cachedFile(t, "guest-check", ".iso", inputs, func(name string) {
		debs, root := t.TempDir(), t.TempDir()
		for _, p := range packages {
			cmd := exec.Command("apt-get", "download", "-q", p)
			cmd.Dir = debs
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		all, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
		for _, deb := range all {
			tool(t, "dpkg-deb", "-x", deb, root)
		}
		tool(t, "cp", efiISOWith(t, map[string][]byte{"BOOTX64.EFI": shim, "GRUBX64.EFI": grub}, map[string][]byte{
			"EFI/debian/grub.cfg": []byte(windowsLoader),
			"vmlinuz":             readFile(t, filepath.Join(root, "boot/vmlinuz-"+version)),
			"initrd":              windowsInitrd(t, root, filepath.Join(root, "lib/modules", version), script),
		}), name)
	})
}

const windowsLoader = `set timeout=0
linux /vmlinuz console=ttyS0 quiet no_timer_check
initrd /initrd
boot
`

// windowsInitrd is an initial RAM disk with a script as its init.
func windowsInitrd(t testing.TB, root, modules string, script []byte) []byte {
	tree := t.TempDir()
	for _, dir := range []string{"proc", "sys", "dev", "bin", "modules", "lib64", "lib", "usr/share"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(tree, "init"), script)
	writeFile(t, filepath.Join(tree, "tone.wav"), tone(2*time.Second))
	tool(t, "cp", filepath.Join(root, "bin/busybox"), filepath.Join(root, "usr/bin/aplay"), filepath.Join(root, "usr/bin/amixer"), filepath.Join(tree, "bin"))
	tool(t, "cp", "-a", filepath.Join(root, "usr/share/alsa"), filepath.Join(tree, "usr/share"))
	sound, _ := filepath.Glob(filepath.Join(root, "usr/lib/*/libasound.so.2*"))
	tool(t, "cp", append(sound, filepath.Join(tree, "lib"))...)
	for _, lib := range []string{"libc.so.6", "libm.so.6", "libresolv.so.2", "ld-linux-x86-64.so.2"} {
		tool(t, "cp", "-L", filepath.Join("/lib/x86_64-linux-gnu", lib), filepath.Join(tree, "lib"))
	}
	if err := errors.Join(os.Symlink("busybox", filepath.Join(tree, "bin/sh")), os.Symlink("../lib/ld-linux-x86-64.so.2", filepath.Join(tree, "lib64/ld-linux-x86-64.so.2")), os.Chmod(filepath.Join(tree, "init"), 0o755)); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	if err := filepath.WalkDir(modules, func(path string, _ os.DirEntry, err error) error {
		if base, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(base, "-", "_")] = path
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var order []string
	var add func(name string)
	add = func(name string) {
		file := files[strings.ReplaceAll(name, "-", "_")]
		base := filepath.Base(file)
		if file == "" {
			t.Fatalf("Debian's kernel has no module %s", name)
		}
		if slices.Contains(order, base) {
			return
		}
		for _, needed := range moduleNeeds(t, file) {
			add(needed)
		}
		order = append(order, base)
		tool(t, "cp", file, filepath.Join(tree, "modules", base))
	}
	for _, m := range windowsModules {
		add(m)
	}
	writeFile(t, filepath.Join(tree, "modules/order"), []byte(strings.Join(order, "\n")+"\n"))
	cmd := exec.Command("sh", "-c", "find . | cpio --quiet -o -H newc | gzip -1")
	cmd.Dir = tree
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// moduleNeeds are the modules that one needs.
func moduleNeeds(t testing.TB, file string) []string {
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(info, []byte{0}) {
		if needs, ok := strings.CutPrefix(string(line), "depends="); ok {
			return strings.FieldsFunc(needs, func(r rune) bool { return r == ',' })
		}
	}
	return nil
}

// tone is a WAV file.
func tone(length time.Duration) []byte {
	const rate = 48000
	var data bytes.Buffer
	for i := range int(length.Seconds() * rate) {
		v := int16(12000 * math.Sin(2*math.Pi*toneRate*float64(i)/rate))
		_ = binary.Write(&data, binary.LittleEndian, []int16{v, v})
	}
	var b bytes.Buffer
	b.WriteString("RIFF")
	_ = binary.Write(&b, binary.LittleEndian, uint32(36+data.Len()))
	b.WriteString("WAVEfmt ")
	_ = binary.Write(&b, binary.LittleEndian, struct {
		Size           uint32
		Kind, Channels uint16
		Rate, Bytes    uint32
		Frame, Bits    uint16
	}{16, 1, 2, rate, rate * 4, 4, 16})
	b.WriteString("data")
	_ = binary.Write(&b, binary.LittleEndian, uint32(data.Len()))
	b.Write(data.Bytes())
	return b.Bytes()
}
