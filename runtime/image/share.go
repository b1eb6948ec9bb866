package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// share lets an image that is about to be installed share data with others. It gets a hard
// link to a kernel or root with the same bytes. If the file system can share blocks, it
// shares those that are equal with the root of an image with the same lowest layers. The
// files of an image never change. What cannot be shared is stored twice, which is no error.
func (s *Store) share(dir string, img *Image) error {
	names, err := s.List()
	if err != nil {
		return nil // the image is whole without
	}
	linked := map[string]bool{}
	var nearest *Handle
	common := 0
	for _, name := range names {
		other, err := s.Open(name)
		if err != nil {
			continue // it is none, or just removed
		}
		for _, file := range []string{Kernel, Rootfs} {
			if linked[file] || other.Files[file] != img.Files[file] {
				continue
			}
			if linked[file], err = takeLink(other, file, dir); err != nil {
				return errors.Join(fmt.Errorf("sharing %s with image %q: %w", file, name, err), other.Close())
			}
		}
		if n := commonLayers(other.Layers, img.Layers); n > common {
			other, nearest, common = nearest, other, n
		}
		if other != nil {
			other.Close()
		}
	}
	if nearest == nil {
		return nil
	}
	defer nearest.Close()
	if linked[Rootfs] {
		return nil
	}
	from, err := nearest.Open(Rootfs)
	if err != nil {
		return nil
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, Rootfs), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("sharing the root with image %q: %w", nearest.Name, err)
	}
	defer to.Close()
	shareEqualBlocks(from, to, min(nearest.Files[Rootfs].Size, img.Files[Rootfs].Size))
	return nil
}

func commonLayers(a, b []Layer) (n int) {
	for n < len(a) && n < len(b) && a[n].DiffID == b[n].DiffID {
		n++
	}
	return n
}

// takeLink puts a link to another image's file in the place of an equal one. What
// the other one says of its file may not be so any more.
func takeLink(other *Handle, file, dir string) (bool, error) {
	theirs, err := other.Open(file)
	if err != nil {
		return false, nil
	}
	defer theirs.Close()
	own := filepath.Join(dir, file)
	ours, err := os.Open(own)
	if err != nil {
		return false, err
	}
	defer ours.Close()
	if same, err := sameContent(theirs, ours); err != nil || !same {
		return false, err
	}
	link := own + ".link"
	if os.Link(other.Path(file), link) != nil {
		return false, nil // not on this file system, or not allowed, or the image has just gone
	}
	// Another image may have the name by now.
	got, err := os.Lstat(link)
	want, wantErr := theirs.Stat()
	if err == nil && wantErr == nil && os.SameFile(got, want) {
		return true, os.Rename(link, own)
	}
	return false, os.Remove(link)
}

func sameContent(a, b *os.File) (bool, error) {
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			switch {
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return errA != nil && errB != nil, nil
			case err != nil:
				return false, err
			}
		}
	}
}
