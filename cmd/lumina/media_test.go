package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Installation media and disks for the tests of desktops, made of Debian's packages
// and kept by the digest of what they are made of.

// installerDir has Debian's text installer (package debian-installer-12-netboot-amd64).
const installerDir = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"

// Debian's kernel ends before it has a console ("IO-APIC + timer doesn't work!") where a busy
// host keeps its CPU from its timer for 60 ms: the tests' guests do not look.
const installerConfig = `set timeout=0
insmod play
play 960 440 1 0 4 440 1
menuentry "Install" {
  linux /install.amd/vmlinuz quiet no_timer_check
  initrd /install.amd/initrd.gz
}
`

func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// testCache is the directory of what tests keep.
func testCache(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "lumina", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cachedFile returns the file that build makes of inputs; build writes to the
// name that it is given.
func cachedFile(t testing.TB, kind, extension string, inputs [][]byte, build func(name string)) string {
	t.Helper()
	h := sha256.New()
	for _, in := range inputs {
		sum := sha256.Sum256(in)
		h.Write(sum[:])
	}
	name := filepath.Join(testCache(t), kind+"-"+hex.EncodeToString(h.Sum(nil)[:8])+extension)
	if _, err := os.Stat(name); err == nil {
		return name
	}
	made := filepath.Join(t.TempDir(), "made"+extension)
	build(made)
	tool(t, "cp", made, name+".new")
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	return name
}

// installer is an ISO with Debian's installer that EFI firmware boots.
func installer(t testing.TB) string {
	t.Helper()
	needsProgram(t)
	kernel, initrd := filepath.Join(installerDir, "linux"), filepath.Join(installerDir, "initrd.gz")
	inputs := [][]byte{readFile(t, kernel), readFile(t, initrd), []byte(installerConfig)}
	return cachedFile(t, "installer", ".iso", inputs, func(name string) {
		tree := t.TempDir()
		writeFile(t, filepath.Join(tree, "install.amd/vmlinuz"), inputs[0])
		writeFile(t, filepath.Join(tree, "install.amd/initrd.gz"), inputs[1])
		writeFile(t, filepath.Join(tree, "boot/grub/grub.cfg"), inputs[2])
		tool(t, "grub-mkrescue", "-o", name, tree)
	})
}

// startsProgram is testdata/starts.c.
func startsProgram(t testing.TB) []byte {
	t.Helper()
	needsProgram(t)
	const source = "testdata/starts.c"
	return readFile(t, cachedFile(t, "starts", ".efi", [][]byte{readFile(t, source)}, func(name string) {
		object := filepath.Join(t.TempDir(), "starts.o")
		tool(t, "gcc", "-Wall", "-Werror", "-O1", "-ffreestanding", "-fno-stack-protector", "-fno-ident", "-fno-asynchronous-unwind-tables",
			"-fshort-wchar", "-mno-red-zone", "-fpie", "-c", source, "-o", object)
		tool(t, "ld", "-m", "i386pep", "--subsystem", "10", "-e", "efi_main", "--image-base", "0x10000000", "-o", name, object)
	}))
}

// startsISO is an ISO with it.
func startsISO(t testing.TB) string {
	t.Helper()
	program := startsProgram(t)
	return cachedFile(t, "starts", ".iso", [][]byte{program}, func(name string) {
		tool(t, "cp", efiISO(t, map[string][]byte{"BOOTX64.EFI": program}), name)
	})
}

// sessionDisk is the image of recipes/desktop.yaml, exported. What is made of
// Debian's packages is kept, the rest is made anew by each program that differs.
func sessionDisk(t testing.TB) string {
	t.Helper()
	const recipe = "../../recipes/desktop.yaml"
	old, err := filepath.Glob(filepath.Join(testCache(t), "session-*"))
	if err != nil {
		t.Fatal(err)
	}
	disk := cachedFile(t, "session", ".qcow2", [][]byte{readFile(t, recipe), readFile(t, program)}, func(name string) {
		here := "LUMINA_HOME=" + filepath.Join(testCache(t), "home")
		image := "session-" + strconv.Itoa(os.Getpid()) // another run of the tests may make its own
		for _, args := range [][]string{
			{"images", "create", image, "--recipe", recipe, "--no-verify", "--replace"},
			{"images", "export", image, "--init", "systemd", "-o", name},
			{"images", "remove", image},
		} {
			cmd := command(args...)
			cmd.Env = append(cmd.Env, here)
			finish(t, cmd).succeeded(t)
		}
	})
	for _, name := range old {
		if name != disk {
			_ = os.Remove(name) // of no use to this program; somebody else may have been faster
		}
	}
	return disk
}

// efiImage is a FAT file system with programs that EFI firmware looks for.
func efiImage(t testing.TB, programs map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	image, size := filepath.Join(dir, "efi.img"), 160 // KiB
	for _, p := range programs {
		size += len(p) >> 10
	}
	cluster := 1 // sectors, of which FAT12 has some 4000
	for size*2/cluster > 4000 {
		cluster *= 2
	}
	tool(t, "mkfs.fat", "-C", "-F", "12", "-s", strconv.Itoa(cluster), image, strconv.Itoa(size))
	tool(t, "mmd", "-i", image, "::/EFI", "::/EFI/BOOT")
	for name, content := range programs {
		writeFile(t, filepath.Join(dir, name), content)
		tool(t, "mcopy", "-i", image, filepath.Join(dir, name), "::/EFI/BOOT/"+name)
	}
	return image
}

// efiISO is an ISO with such programs.
func efiISO(t testing.TB, programs map[string][]byte) string {
	t.Helper()
	return efiISOWith(t, programs, nil)
}

// efiISOWith is an ISO with such programs, and other files beside them.
func efiISOWith(t testing.TB, programs, files map[string][]byte) string {
	t.Helper()
	tree, name := t.TempDir(), filepath.Join(t.TempDir(), "efi.iso")
	for file, content := range files {
		writeFile(t, filepath.Join(tree, file), content)
	}
	tool(t, "cp", efiImage(t, programs), filepath.Join(tree, "efi.img"))
	tool(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-e", "efi.img", "-no-emul-boot", "-o", name, tree)
	return name
}

// noProgram has the header of a PE program for a machine, and nothing else.
func noProgram(machine uint16) []byte {
	b := make([]byte, 512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 128)
	copy(b[128:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[132:], machine)
	return b
}
