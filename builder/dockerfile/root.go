package dockerfile

import (
	"context"
	"sync"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/oci"
)

// root is a stage's root file system, put together as far as it is needed.
type root struct {
	path  string
	place *builder.Place

	ahead   sync.WaitGroup // for what prepare began
	mu      sync.Mutex
	root    *builder.Root
	applied int
	err     error
	image   *files.Image // once it is complete
}

// prepare begins to apply the layers of the base, which the result needs in any case,
// beside the instructions. Their error is told to who needs the root.
func (r *root) prepare(ctx context.Context, layers []layer) {
	r.ahead.Go(func() { _ = r.advance(ctx, layers) })
}

// advance applies layers that are not applied yet.
func (r *root) advance(ctx context.Context, layers []layer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.advanceLocked(ctx, layers)
}

func (r *root) advanceLocked(ctx context.Context, layers []layer) error {
	if r.err != nil {
		return r.err
	}
	if r.root == nil {
		if r.root, r.err = r.place.NewRoot(r.path); r.err != nil {
			return r.err
		}
	}
	if r.applied >= len(layers) {
		return nil
	}
	var above []oci.Layer
	for _, l := range layers[r.applied:] {
		above = append(above, l.Layer)
	}
	if r.err = r.root.Apply(ctx, func(builder.Progress) {}, above...); r.err == nil {
		r.applied = len(layers)
	}
	return r.err
}

// view is the root with these layers.
func (r *root) view(ctx context.Context, layers []layer) (view, error) {
	v := view{added: map[string]*entry{}}
	if err := r.advance(ctx, layers); err != nil {
		return v, err
	}
	v.root = r.root.Tree()
	return v, nil
}

// finish completes the file. It calls begun when that is there.
func (r *root) finish(ctx context.Context, layers []layer, begun func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.image != nil {
		return nil // it is complete
	}
	if err := r.advanceLocked(ctx, nil); err != nil {
		return err
	}
	begun()
	if err := r.advanceLocked(ctx, layers); err != nil {
		return err
	}
	r.err = r.root.Finish()
	return r.err
}

// files are those of the complete root.
func (r *root) files(ctx context.Context, layers []layer) (files.Tree, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.image != nil {
		return r.image, nil
	}
	if err := r.advanceLocked(ctx, layers); err != nil {
		return nil, err
	}
	if r.err = r.root.Finish(); r.err != nil {
		return nil, r.err
	}
	r.image, r.err = files.OpenImage(r.path)
	return r.image, r.err
}

func (r *root) close() error {
	r.ahead.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.image != nil {
		return r.image.Close()
	}
	if r.root != nil {
		_ = r.root.Close() // closed already, when it is complete
	}
	return nil
}
