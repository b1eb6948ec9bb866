package builder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Root is a root file system that is put together of layers, the lowest first.
// What it has so far can be looked at on the way.
type Root struct {
	f     *os.File
	w     *erofs.Writer
	tree  *flatten.Tree
	names hash.Hash
}

// output is a file that is no longer than a limit, and that comes to the disk while it
// is written.
type output struct {
	*os.File
	limit int64
	begun int64 // up to where it is on its way
}

// portion is how much is sent on its way to the disk at once, in bytes.
const portion = 8 << 20

func (o *output) WriteAt(p []byte, at int64) (int, error) {
	end := at + int64(len(p))
	if end > o.limit {
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, o.limit)
	}
	n, err := o.File.WriteAt(p, at)
	if end -= end % portion; err == nil && end > o.begun {
		durable.Begin(o.File, o.begun, end-o.begun)
		o.begun = end
	}
	return n, err
}

// newRoot begins a root file system of at most limit bytes in a new file.
func newRoot(path string, limit int64) (*Root, error) {
	f, err := durable.Create(path, image.FileMode)
	if err != nil {
		return nil, fmt.Errorf("writing the root file system: %w", err)
	}
	w := erofs.NewWriter(&output{File: f, limit: limit})
	return &Root{f: f, w: w, tree: flatten.New(w), names: sha256.New()}, nil
}

// nowhere is a file that forgets its content.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Truncate(int64) error                   { return nil }

// newTree begins a root file system of which only the tree is asked for.
func newTree() *Root {
	w := erofs.NewWriter(nowhere{})
	return &Root{w: w, tree: flatten.New(w), names: sha256.New()}
}

// Apply puts layers on top, the lowest first; each is read and uncompressed while
// the one before it is written. After an error the root is of no use.
func (r *Root) Apply(ctx context.Context, progress func(Progress), layers ...oci.Layer) error {
	var next *layerStream
	for n, l := range layers {
		s := next
		if s == nil {
			s = beginLayer(ctx, l, progress)
		}
		if next = nil; n+1 < len(layers) {
			next = beginLayer(ctx, layers[n+1], progress)
		}
		err := s.apply(ctx, r.tree)
		s.end(err)
		if err != nil {
			if next != nil {
				next.end(err)
			}
			err = fmt.Errorf("layer %d of %d (%s): %w", n+1, len(layers), l.DiffID, err)
			if l.Digest != (v1.Hash{}) && (errors.Is(err, flatten.ErrInvalid) || errors.Is(err, errDigest) || errors.Is(err, io.ErrUnexpectedEOF)) {
				err = &brokenLayer{err, l.Digest}
			}
			return err
		}
		fmt.Fprintln(r.names, l.DiffID)
	}
	return nil
}

// Tree is the root directory as it is so far, to be read only.
func (r *Root) Tree() *erofs.Inode { return r.tree.Root() }

// Finish completes the file.
func (r *Root) Finish() error {
	// The layers name the file system.
	if err := r.w.Close(r.tree.Root(), [16]byte(r.names.Sum(nil))); err != nil {
		return fmt.Errorf("writing the root file system: %w", err)
	}
	return r.f.Close()
}

// Close closes the file as it is.
func (r *Root) Close() error { return r.f.Close() }
