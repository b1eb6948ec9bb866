package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/durable"
)

// Handle is an image that is being used: it cannot be removed until it is
// closed.
type Handle struct {
	*Image
	Name string
	dir  string
	root *os.Root // the directory itself, whatever takes its place
	lock *os.File
}

// Open opens a file of the image for reading: of this one, also when another
// has taken its name since.
func (h *Handle) Open(name string) (*os.File, error) {
	f, err := openFile(h.root, name)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", h.Name, err)
	}
	return f, nil
}

// Path is where a file of the image is.
func (h *Handle) Path(name string) string { return filepath.Join(h.dir, name) }

// SignedBy names the key with which the image was pulled; "" for none.
func (h *Handle) SignedBy() string {
	f, err := h.Open(SignedBy)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// MarkPrebuilt marks the image of a directory as one that came whole from another
// machine. What its image.json says of its files was compared with them; of its layers it
// has nothing but their digests, and they may be of layers that are none of its own.
func MarkPrebuilt(dir string) error {
	return durable.WriteNew(filepath.Join(dir, prebuilt), nil, FileMode)
}

// Prebuilt says whether the image is so marked.
func (h *Handle) Prebuilt() bool {
	_, err := h.root.Lstat(prebuilt)
	return !errors.Is(err, os.ErrNotExist)
}

// Close ends the use.
func (h *Handle) Close() error { return errors.Join(h.root.Close(), h.lock.Close()) }

// Verify reads an image's files and compares their digests.
func (h *Handle) Verify(ctx context.Context) error {
	for name, want := range h.Files {
		got, err := Digest(ctx, h.Path(name))
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: %s of image %q was modified after the image was made", ErrInvalid, name, h.Name)
		}
	}
	return nil
}
