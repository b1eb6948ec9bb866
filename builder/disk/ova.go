package disk

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// writeOVA writes a tar archive of a machine's description, the digests of its files
// and its disk: DMTF's DSP0243, 5.3.
func (e *export) writeOVA(s *staged) error {
	name := strings.TrimSuffix(filepath.Base(e.Path), ".ova")
	vmdk, err := newStaged(filepath.Dir(e.Path), 0) // for its file without a name
	if err != nil {
		return err
	}
	defer vmdk.Close()
	digest := sha256.New()
	if err := writeVMDK(io.MultiWriter(vmdk.f, digest), s, name+"-disk1.vmdk", e.number("vmdk")); err != nil {
		return err
	}
	size, err := vmdk.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	ovf := e.For.ova(&ovaOptions{name: name, disk: name + "-disk1.vmdk", file: size, capacity: s.size})
	manifest := fmt.Sprintf("SHA256(%s.ovf)= %x\nSHA256(%s-disk1.vmdk)= %x\n", name, sha256.Sum256([]byte(ovf)), name, digest.Sum(nil))
	t := tar.NewWriter(e.file)
	for _, f := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{name + ".ovf", int64(len(ovf)), strings.NewReader(ovf)},
		{name + ".mf", int64(len(manifest)), strings.NewReader(manifest)},
		{name + "-disk1.vmdk", size, io.NewSectionReader(vmdk.f, 0, size)},
	} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: f.size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := io.Copy(t, contextReader{e.ctx, f.r}); err != nil {
			return err
		}
	}
	return t.Close()
}

// writeGCE writes what Compute Engine imports: disk.raw in a gzip'ed tar archive of
// GNU's older format.
func (e *export) writeGCE(s *staged) error {
	z, err := gzip.NewWriterLevel(e.file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if err := t.WriteHeader(&tar.Header{Name: "disk.raw", Mode: 0o644, Size: s.size, ModTime: time.Unix(0, 0), Format: tar.FormatGNU}); err != nil {
		return err
	}
	at := int64(0)
	zeroes := make([]byte, mib)
	fill := func(to int64) error {
		for at < to {
			n, err := t.Write(zeroes[:min(mib, to-at)])
			if err == nil {
				err = context.Cause(e.ctx)
			}
			if err != nil {
				return err
			}
			at += int64(n)
		}
		return nil
	}
	if err := s.each(func(n int64, b []byte) error {
		if err := fill(n * grainSize); err != nil {
			return err
		}
		at += int64(len(b))
		_, err := t.Write(b)
		return err
	}); err != nil {
		return err
	}
	if err := fill(s.size); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// inOrder is a disk of a format that is written from its beginning to its end.
type inOrder struct {
	*staged
	e *export
}

func newInOrder(e *export, size int64) (*inOrder, error) {
	s, err := newStaged(filepath.Dir(e.Path), size)
	return &inOrder{s, e}, err
}

func (d *inOrder) finish() error {
	switch format(d.e.Path) {
	case ".ova":
		return d.e.writeOVA(d.staged)
	case ".tar.gz":
		return d.e.writeGCE(d.staged)
	}
	return writeVMDK(d.e.file, d.staged, filepath.Base(d.e.Path), d.e.number("vmdk"))
}

// fixedVHD is a disk as it is, and behind it a footer that says so.
type fixedVHD struct {
	*raw
	footer []byte
}

func newFixedVHD(f *os.File, size int64, id [16]byte) (*fixedVHD, error) {
	r, err := newRaw(f, size)
	if err != nil {
		return nil, err
	}
	return &fixedVHD{r, vhdFooter(size, id, 2)}, nil
}

func (d *fixedVHD) finish() error {
	end, err := d.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	_, err = d.f.WriteAt(d.footer, end)
	return err
}
