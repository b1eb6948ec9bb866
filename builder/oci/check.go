package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// maxDepth is how deep indexes within indexes go.
const maxDepth = 4

// checkLayout refuses a layout that go-containerregistry, which opens files by their
// names and reads them whole, would wait for or read without an end: one with
// anything else than files in it, or a large index.json. It is fs.ErrNotExist when
// there is no layout.
func checkLayout(dir string) error {
	root, err := statefile.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := readSmall(dirFiles{root}, "index.json"); err != nil {
		return err
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type().IsRegular() {
			return err
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: %s is not a file", ErrInvalid, name)
		}
		return err
	})
}

// checkOwn says whether a layout that is written to has files and directories of its own: a
// link would lead what is written, or what is taken to be there, to another place.
func checkOwn(dir string) error {
	for _, name := range []string{"index.json", "blobs", "blobs/sha256"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%w: %s is a link; remove it", ErrInvalid, filepath.Join(dir, name))
		}
	}
	return nil
}

// hasBlob says whether a layout has a blob. Its error is that what is there is no file of
// its own, or has not the bytes that its name says, or ctx's cause.
func hasBlob(ctx context.Context, dir string, h v1.Hash) (bool, error) {
	f, err := statefile.Open(filepath.Join(dir, blobName(h)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = checkDigest(ctx, f, h)
	}
	return err == nil, err
}

// checkBlobs says whether what an image has in a layout, as far as it is there, is what its
// names say. Some of it may be links: checkLayout has seen that they lead to files.
func checkBlobs(ctx context.Context, dir string, a artifact) error {
	var s survey
	if err := s.artifact(a); err != nil {
		return err
	}
	for _, h := range s.blobs {
		f, err := os.Open(filepath.Join(dir, blobName(h)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // who wants it says so
		}
		if err == nil {
			err = checkDigest(ctx, f, h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkDigest reads a file, and closes it.
func checkDigest(ctx context.Context, f *os.File, want v1.Hash) error {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	have, _, err := v1.SHA256(f)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil && have != want {
		err = fmt.Errorf("%w: %s has other bytes: %s", ErrInvalid, f.Name(), have)
	}
	return err
}

// checkManifests reads a manifest and those below it, of which each has to be small, and
// what its descriptor says.
func checkManifests(dir string, d v1.Descriptor) error {
	root, err := statefile.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return checkManifest(dirFiles{root}, d, maxDepth)
}

func checkManifest(f files, d v1.Descriptor, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: it has more than %d indexes within each other", ErrInvalid, maxDepth)
	}
	raw, err := readBlob(f, d)
	if err != nil {
		return err
	}
	if d.MediaType.IsImage() {
		m, err := v1.ParseManifest(bytes.NewReader(raw))
		if err != nil {
			return fmt.Errorf("%w: manifest %s: %w", ErrInvalid, d.Digest, err)
		}
		_, err = readBlob(f, m.Config)
		return err
	}
	if !d.MediaType.IsIndex() {
		return nil
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("%w: index %s: %w", ErrInvalid, d.Digest, err)
	}
	for _, below := range index.Manifests {
		if err := checkManifest(f, below, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// maxImages is how many images an index has at most that is copied.
const maxImages = 1000

// survey counts what a copy takes, and refuses what is not to be read whole, which is
// what writing an image does with its manifests and its configuration.
type survey struct {
	images int
	bytes  int64
	blobs  []v1.Hash // what it copies, but for the artifact's own manifest
}

func (s *survey) add(d v1.Descriptor) error {
	if d.Size < 0 || d.Size > math.MaxInt64-s.bytes {
		return fmt.Errorf("%w: a size of %d bytes", ErrInvalid, d.Size)
	}
	s.bytes += d.Size
	s.blobs = append(s.blobs, d.Digest)
	return nil
}

func (s *survey) artifact(a artifact) error {
	if a.index != nil {
		return s.index(a.index, maxDepth)
	}
	return s.image(a.image)
}

func (s *survey) index(index v1.ImageIndex, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: it has more than %d indexes within each other", ErrInvalid, maxDepth)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if s.images += len(m.Manifests); s.images > maxImages {
		return fmt.Errorf("%w: it has more than %d images", ErrInvalid, maxImages)
	}
	for _, d := range m.Manifests {
		err := s.add(d)
		if err == nil && d.MediaType.IsIndex() {
			var below v1.ImageIndex
			if below, err = index.ImageIndex(d.Digest); err == nil {
				err = s.index(below, depth-1)
			}
		} else if err == nil && d.MediaType.IsImage() {
			var below v1.Image
			if below, err = index.Image(d.Digest); err == nil {
				err = s.image(below)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *survey) image(image v1.Image) error {
	m, err := image.Manifest()
	if err != nil {
		return err
	}
	if m.Config.Size > maxManifest {
		return fmt.Errorf("%w: its configuration has %d bytes, of at most %d", ErrInvalid, m.Config.Size, maxManifest)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := s.add(d); err != nil {
			return err
		}
	}
	return nil
}
