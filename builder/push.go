package builder

import (
	"context"
	"fmt"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// PushOptions says what to push where.
type PushOptions struct {
	Name      string
	Reference string
	Store     *image.Store
	CacheDir  string
	// Progress is told how many bytes were sent; it may be nil.
	Progress func(done, total int64)
}

// Push sends an image to a registry as a container image, which every container
// tool can run. It returns the digest of its manifest. An image whose layers the
// cache does not have is sent as one layer.
func Push(ctx context.Context, o PushOptions) (string, error) {
	h, err := o.Store.Open(o.Name)
	if err != nil {
		return "", err
	}
	defer h.Close()
	img := *h.Image
	layers, err := localImage{h, o.CacheDir}.layers(ctx, &img)
	if err != nil {
		return "", fmt.Errorf("pushing image %q: %w", o.Name, err)
	}
	config, err := containerConfig(&img)
	if err != nil {
		return "", fmt.Errorf("pushing image %q: %w", o.Name, err)
	}
	var annotations map[string]string
	if img.Container != nil {
		annotations = img.Container.Annotations
	}
	digest, err := oci.Push(ctx, o.Reference, config, annotations, layers, o.Progress)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return digest, err
}
