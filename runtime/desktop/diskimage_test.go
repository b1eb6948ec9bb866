package desktop

import (
	"bytes"
	"context"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// someDisk has a partition table's signature, data here and there, and a hole.
func someDisk(t testing.TB, name string, size int64) []byte {
	t.Helper()
	content := make([]byte, size)
	content[510], content[511] = 0x55, 0xAA
	random := rand.New(rand.NewSource(1))
	random.Read(content[1<<20 : 1<<20+100_000])
	copy(content[size-3000:], bytes.Repeat([]byte("end "), 700))
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, run := range [][2]int64{{0, 512}, {1 << 20, 1<<20 + 100_000}, {size - 3000, size}} {
		if _, err := f.WriteAt(content[run[0]:run[1]], run[0]); err != nil {
			t.Fatal(err)
		}
	}
	return content
}

func readDisk(t testing.TB, name string) ([]byte, int64, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	disk, err := openDisk(f)
	if err != nil {
		return nil, 0, err
	}
	to, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyDisk(context.Background(), to, disk); err != nil {
		return nil, 0, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(to.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to.Name())
	return b, st.Blocks * 512, err
}

// Disks that QEMU's own tool writes are copied, and stay sparse.
func TestCopyDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs qemu-img")
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "d.raw")
	want := someDisk(t, raw, 40<<20+512)
	for name, options := range map[string][]string{
		"raw":                  nil,
		"qcow2":                {},
		"qcow2, compressed":    {"-c"},
		"qcow2, version 2":     {"-o", "compat=0.10"},
		"qcow2, small cluster": {"-o", "cluster_size=512"},
		"qcow2, preallocated":  {"-o", "preallocation=metadata"},
		"qcow2, large cluster": {"-c", "-o", "cluster_size=2M"},
	} {
		t.Run(name, func(t *testing.T) {
			file := raw
			if options != nil {
				file = filepath.Join(t.TempDir(), "d.qcow2")
				args := append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), raw, file)
				if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
					t.Fatalf("%v; install qemu-utils\n%s", err, out)
				}
			}
			got, room, err := readDisk(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the copy differs: %d bytes, want %d", len(got), len(want))
			}
			if room > 1<<20 {
				t.Errorf("the copy takes %d bytes of room", room)
			}
		})
	}
}

func TestCopyDiskRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs qemu-img")
	}
	dir := t.TempDir()
	raw, base := filepath.Join(dir, "d.raw"), filepath.Join(dir, "base.qcow2")
	someDisk(t, raw, 4<<20)
	convert := func(name string, args ...string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if out, err := exec.Command("qemu-img", append(args, name)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return name
	}
	write := func(name, content string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	convert("base.qcow2", "convert", "-f", "raw", "-O", "qcow2", raw)
	whole, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ file, want string }{
		"empty":            {write("empty", ""), "neither a qcow2 nor a raw"},
		"text":             {write("text", strings.Repeat("text\n", 1000)), "no partition table"},
		"a directory":      {dir, "it is not a file"},
		"VMDK":             {convert("d.vmdk", "convert", "-f", "raw", "-O", "vmdk", raw), "VMDK image; convert it with: qemu-img convert"},
		"VHDX":             {convert("d.vhdx", "convert", "-f", "raw", "-O", "vhdx", raw), "VHDX image"},
		"on another image": {convert("top.qcow2", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base), "has a backing file"},
		"zstd":             {convert("zstd.qcow2", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw), "features 0x8"},
		"only its header":  {write("header", string(whole[:512])), "truncated"},
		"truncated":        {write("half", string(whole[:len(whole)-2000])), "reading"},
		"a damaged header": {write("damaged", string(whole[:20])+"\x00\x00\x00\x40"+string(whole[24:])), "2^64"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := readDisk(t, tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
