// Package pack makes archives of images and images of archives. An archive is
// a tar of the image's files, compressed with zstd and cut into parts that
// GitHub takes. The same image gives the same bytes.
package pack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// window is how far back the compression looks, in bytes: what unpacking needs
// of memory follows from it.
const window = 8 << 20

// Options are what Pack takes besides the image.
type Options struct {
	Dir      string // where the parts go
	Name     string // what the image is published as
	PartSize int64  // of the largest part, in bytes; catalog.MaxPart when 0
	Progress func(done, total int64)
}

// Pack packs an image and returns its catalog entry as far as the archive
// determines it.
func Pack(ctx context.Context, h *image.Handle, o Options) (catalog.Image, error) {
	entry := catalog.Image{
		ID: catalog.ID(o.Name, h.Architecture), Name: o.Name, Architecture: h.Architecture,
		Files: map[string]image.File{},
	}
	if o.PartSize == 0 {
		o.PartSize = catalog.MaxPart
	}
	if o.PartSize < 1 || o.PartSize > catalog.MaxPart {
		return entry, fmt.Errorf("part size %d: want 1 to %d", o.PartSize, catalog.MaxPart)
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	files := make([]*os.File, 0, len(catalog.Files()))
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, name := range catalog.Files() {
		f, err := h.Open(name)
		if err != nil {
			return entry, err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			return entry, fmt.Errorf("packing image %q: %w", h.Name, err)
		}
		entry.Files[name] = image.File{Size: info.Size()}
		entry.Size += info.Size()
	}
	parts := &splitter{dir: o.Dir, name: entry.ID + ".tar.zst", size: o.PartSize}
	err := writeArchive(ctx, parts, files, entry, o.Progress)
	if err == nil {
		entry.Parts, err = parts.finish()
	}
	for name, want := range h.Files {
		if err == nil && entry.Files[name] != want {
			err = fmt.Errorf("%w: %s was modified after the image was made; make the image again", image.ErrInvalid, name)
		}
	}
	if err != nil {
		parts.discard()
		return entry, fmt.Errorf("packing image %q: %w", h.Name, err)
	}
	for _, p := range entry.Parts {
		entry.DownloadSize += p.Size
	}
	return entry, nil
}

// writeArchive writes the files to w and their digests into entry.
func writeArchive(ctx context.Context, w io.Writer, files []*os.File, entry catalog.Image, progress func(done, total int64)) error {
	// One goroutine: how blocks are cut must not depend on how fast who writes.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	defer z.Close()
	t := tar.NewWriter(z)
	var done int64
	for i, name := range catalog.Files() {
		size := entry.Files[name].Size
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
			return err
		}
		sum := sha256.New()
		n, err := copyContext(ctx, io.MultiWriter(t, sum), io.LimitReader(files[i], size), func(n int64) { progress(done+n, entry.Size) })
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("%s became shorter while it was read", name)
		}
		done += n
		entry.Files[name] = image.File{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func copyContext(ctx context.Context, w io.Writer, r io.Reader, progress func(n int64)) (int64, error) {
	buf := make([]byte, 1<<20)
	var total int64
	for {
		if err := context.Cause(ctx); err != nil {
			return total, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			progress(total)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// splitter writes a stream into files of at most a size.
type splitter struct {
	dir, name string
	size      int64
	parts     []catalog.Asset
	f         *os.File
	sum       hash.Hash
}

func (s *splitter) path(i int) string {
	return filepath.Join(s.dir, s.parts[i].Name)
}

func (s *splitter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if s.f == nil {
			s.parts = append(s.parts, catalog.Asset{Name: fmt.Sprintf("%s.%03d", s.name, len(s.parts)+1)})
			f, err := os.OpenFile(s.path(len(s.parts)-1), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
			if err != nil {
				return 0, err
			}
			s.f, s.sum = f, sha256.New()
		}
		part := &s.parts[len(s.parts)-1]
		n, err := s.f.Write(p[:min(int64(len(p)), s.size-part.Size)])
		s.sum.Write(p[:n])
		part.Size += int64(n)
		p = p[n:]
		if err != nil {
			return total - len(p), err
		}
		if part.Size == s.size {
			if err := s.closePart(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

func (s *splitter) closePart() error {
	s.parts[len(s.parts)-1].SHA256 = hex.EncodeToString(s.sum.Sum(nil))
	err := s.f.Close()
	s.f = nil
	return err
}

// finish returns the parts; an only one has no number.
func (s *splitter) finish() ([]catalog.Asset, error) {
	if s.f != nil {
		if err := s.closePart(); err != nil {
			return nil, err
		}
	}
	if len(s.parts) == 1 {
		if err := os.Rename(s.path(0), filepath.Join(s.dir, s.name)); err != nil {
			return nil, err
		}
		s.parts[0].Name = s.name
	}
	return s.parts, nil
}

func (s *splitter) discard() {
	if s.f != nil {
		s.f.Close()
	}
	for i := range s.parts {
		os.Remove(s.path(i))
	}
}
