package desktop

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
)

// fullDisk is a disk of one cluster at every place, as a qcow2 of some kilobytes can say.
type fullDisk struct{ length int64 }

func (d fullDisk) Size() int64 { return d.length }

func (d fullDisk) Data(_ context.Context, at int64) (from, to int64, err error) {
	if at >= d.length {
		return 0, 0, io.EOF
	}
	return at, d.length, nil
}

func (d fullDisk) ReadAt(p []byte, _ int64) (int, error) {
	for n := range p {
		p[n] = 'A'
	}
	return len(p), nil
}

// A small image of a large disk does not fill the host's.
func TestCopyDiskKeepsTheReserve(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it mounts a small file system, which takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	to, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyDisk(t.Context(), to, fullDisk{1 << 40}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("copyDisk() = %v", err)
	}
	if free, err := runtime.FreeSpace(dir); err != nil || free < runtime.DefaultDiskReserve {
		t.Errorf("%d bytes are free, %v", free, err)
	}
}
