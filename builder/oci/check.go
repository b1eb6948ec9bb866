package oci

import (
	"bytes"
	"fmt"
	"io/fs"
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

// checkConfigs refuses images with a configuration that is not to be read whole, which
// is what writing one does.
func checkConfigs(index v1.ImageIndex, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: it has more than %d indexes within each other", ErrInvalid, maxDepth)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range m.Manifests {
		switch {
		case d.MediaType.IsIndex():
			below, err := index.ImageIndex(d.Digest)
			if err == nil {
				err = checkConfigs(below, depth-1)
			}
			if err != nil {
				return err
			}
		case d.MediaType.IsImage():
			below, err := index.Image(d.Digest)
			if err == nil {
				err = checkConfig(below)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func checkConfig(image v1.Image) error {
	m, err := image.Manifest()
	if err != nil {
		return err
	}
	if m.Config.Size > maxManifest {
		return fmt.Errorf("%w: its configuration has %d bytes, of at most %d", ErrInvalid, m.Config.Size, maxManifest)
	}
	return nil
}
