package iso

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is the beginning of a PE program for a machine.
func program(machine uint16) []byte {
	b := make([]byte, 512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 128)
	copy(b[128:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[132:], machine)
	return b
}

// tool runs a program of the tests.
func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("with -short: it runs %s", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// bootImage makes a FAT file system with a loader in it; bits is the FAT's kind.
func bootImage(t testing.TB, dir, loader string, machine uint16, bits int) string {
	t.Helper()
	name := filepath.Join(dir, fmt.Sprintf("efi%d.img", bits))
	kilobytes := map[int]string{12: "160", 16: "16384", 32: "40960"}[bits]
	tool(t, "mkfs.fat", "-C", "-F", fmt.Sprint(bits), "-s", "1", name, kilobytes)
	write(t, filepath.Join(dir, loader), program(machine))
	tool(t, "mmd", "-i", name, "::/EFI", "::/EFI/BOOT")
	tool(t, "mcopy", "-i", name, filepath.Join(dir, loader), "::/EFI/BOOT/"+loader)
	return name
}

// isoOf makes an image with xorriso of what is in a directory.
func isoOf(t testing.TB, tree string, args ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "install.iso")
	args = append([]string{"-as", "mkisofs", "-quiet", "-o", name, "-V", "TEST"}, args...)
	tool(t, "xorriso", append(args, tree)...)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReads(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs mkfs.fat and mtools")
	}
	for _, bits := range []int{12, 16, 32} {
		for _, tt := range []struct {
			loader, arch, other string
			machine             uint16
		}{{"BOOTX64.EFI", "amd64", "arm64", 0x8664}, {"BOOTAA64.EFI", "arm64", "amd64", 0xAA64}} {
			t.Run(fmt.Sprintf("%s FAT%d", tt.arch, bits), func(t *testing.T) {
				dir, tree := t.TempDir(), t.TempDir()
				image := bootImage(t, dir, tt.loader, tt.machine, bits)
				tool(t, "cp", image, filepath.Join(tree, "efi.img"))
				write(t, filepath.Join(tree, "install.amd/vmlinuz"), []byte("kernel"))
				write(t, filepath.Join(tree, "install.amd/initrd.gz"), []byte("initrd"))
				b := isoOf(t, tree, "-R", "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot")
				i, err := Read(bytes.NewReader(b), int64(len(b)))
				if err != nil {
					t.Fatal(err)
				}
				if i.Volume != "TEST" || !i.ElTorito || len(i.Loaders) != 1 || i.Loaders[0] != (Loader{tt.arch, "/EFI/BOOT/" + tt.loader, "boot image"}) {
					t.Errorf("read %+v", i)
				}
				if err := i.Boots(tt.arch); err != nil {
					t.Error(err)
				}
				if err := i.Boots(tt.other); err == nil || !strings.Contains(err.Error(), "it is for "+tt.arch) || !strings.Contains(err.Error(), "the guest is "+tt.other) {
					t.Errorf("on %s: %v", tt.other, err)
				}
				k, err := i.Kernel("amd64")
				if err != nil {
					t.Fatal(err)
				}
				content := make([]byte, 6)
				if _, err := k.Initrd.ReadAt(content, 0); err != nil || string(content) != "initrd" {
					t.Errorf("initrd: %q, %v", content, err)
				}
				if _, err := i.Kernel("arm64"); !errors.Is(err, ErrNoKernel) {
					t.Errorf("kernel for arm64: %v", err)
				}
			})
		}
	}
}

func TestReadsTheTreeWithoutABootCatalog(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "efi/boot/bootaa64.efi"), program(0xAA64))
	for _, args := range [][]string{{"-R"}, {"-iso-level", "1"}} {
		b := isoOf(t, tree, args...)
		i, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if i.ElTorito || i.Boots("arm64") != nil || i.Boots("amd64") == nil {
			t.Errorf("%q: %+v", args, i)
		}
	}
}

// What is not an image, or no whole one, is refused in one line.
func TestRefuses(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "file"), bytes.Repeat([]byte("x"), 1<<20))
	b := isoOf(t, tree)
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":      {nil, "it is empty"},
		"short":      {[]byte("hello"), "5 bytes are too few"},
		"no image":   {bytes.Repeat([]byte("text\n"), 1<<15), "no volume descriptor"},
		"half":       {b[:len(b)/2], "truncated"},
		"descriptor": {b[:16*sector+100], "too few"},
		"one sector": {b[:17*sector], "truncated"},
	} {
		_, err := Read(bytes.NewReader(tt.content), int64(len(tt.content)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	i, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Boots("amd64"); err == nil || !strings.Contains(err.Error(), "no EFI loader") {
		t.Errorf("without a loader: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	dir, tree := f.TempDir(), f.TempDir()
	tool(f, "cp", bootImage(f, dir, "BOOTX64.EFI", 0x8664, 12), filepath.Join(tree, "efi.img"))
	write(f, filepath.Join(tree, "install.amd/vmlinuz"), []byte("kernel"))
	f.Add(isoOf(f, tree, "-R", "-no-pad", "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot")[16*sector:])
	f.Fuzz(func(t *testing.T, b []byte) {
		// The 32 KiB before the first descriptor mean nothing.
		b = append(make([]byte, 16*sector), b...)
		i, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_ = i.Boots("amd64")
		if k, err := i.Kernel("amd64"); err == nil && k.Initrd.Size() > int64(len(b)) {
			t.Error("a file is larger than its image")
		}
	})
}
