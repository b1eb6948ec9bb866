//go:build linux

package boot

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// tableOf makes a disk of 64 MiB with three partitions; the last ends 8 MiB before
// its end.
func tableOf(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 64<<20); err != nil {
		t.Fatal(err)
	}
	buildertest.Needs(t, "sfdisk")
	sfdisk := exec.Command("sfdisk", "-q", name)
	sfdisk.Stdin = strings.NewReader("label: gpt\nsize=8MiB,name=boot\nsize=8MiB,name=root\nsize=39MiB,name=data\n")
	if out, err := sfdisk.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v, %s", err, out)
	}
	return name
}

func grown(t *testing.T, name string, number int) (start, length int64, err error) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return growGPT(f, size, 512, number)
}

// The last partition takes what is free, once; sfdisk finds nothing wrong.
func TestGrowGPT(t *testing.T) {
	name := tableOf(t)
	if _, length, err := grown(t, name, 3); length != 0 || err != nil {
		t.Errorf("with 8 MiB to gain: %d, %v", length, err)
	}
	if err := os.Truncate(name, 200<<20); err != nil {
		t.Fatal(err)
	}
	if _, length, err := grown(t, name, 2); length != 0 || err != nil {
		t.Errorf("one before the last: %d, %v", length, err)
	}
	// The end of the disk's last whole MiB before the copy of the table.
	if start, length, err := grown(t, name, 3); start != 17<<20 || length != (199-17)<<20 || err != nil {
		t.Errorf("grown: from %d, %d bytes, %v", start, length, err)
	}
	out, err := exec.Command("sfdisk", "--verify", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk: %v, %s", err, out)
	}
	out, err = exec.Command("sfdisk", "-d", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "size=      372736") || strings.Count(string(out), "name=\"") != 3 {
		t.Errorf("sfdisk: %v, %s", err, out)
	}
	if _, length, err := grown(t, name, 3); length != 0 || err != nil {
		t.Errorf("again: %d, %v", length, err)
	}
	// A table that is not what it says is left alone.
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 512+48); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(400 << 20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := grown(t, name, 3); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged table: %v", err)
	}
}

// memoryDisk is what fuzzing makes of a disk's beginning.
type memoryDisk struct {
	b    []byte
	size int64
}

func (d *memoryDisk) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(d.b)) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, d.b[at:]), nil
}

func (d *memoryDisk) WriteAt(p []byte, at int64) (int, error) {
	if at < 512 || at+int64(len(p)) > d.size {
		panic("written outside of the disk, or on its first sector")
	}
	return len(p), nil
}

// Whatever a disk says of itself, it is written only where it is.
func FuzzGrowGPT(f *testing.F) {
	b, err := os.ReadFile(tableOf(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:34*512], int64(200<<20), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int64, number int) {
		if size < 1<<20 || size > 1<<50 {
			return
		}
		start, length, err := growGPT(&memoryDisk{b, size}, size, 512, number)
		if err == nil && length != 0 && (start < 0 || length < 0 || start+length > size) {
			t.Errorf("a partition from %d of %d bytes on a disk of %d", start, length, size)
		}
	})
}
