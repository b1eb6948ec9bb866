package vmtest

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// copySparse copies a file and leaves its holes holes.
func copySparse(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	return data(from, func(at, n int64) error {
		_, err := io.Copy(io.NewOffsetWriter(to, at), io.NewSectionReader(from, at, n))
		return err
	})
}

// digest is that of a snapshot's files.
func digest(t *testing.T, s vm.Snapshot) []byte {
	t.Helper()
	h := sha256.New()
	for _, f := range []*os.File{s.Memory, s.State} {
		if err := data(f, func(at, n int64) error {
			_, err := io.Copy(h, io.NewSectionReader(f, at, n))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return h.Sum(nil)
}

// data calls do with each part of a file that is not a hole.
func data(f *os.File, do func(at, n int64) error) error {
	fd := int(f.Fd())
	for at := int64(0); ; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := do(start, end-start); err != nil {
			return err
		}
		at = end
	}
}
