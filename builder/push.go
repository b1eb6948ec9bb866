package builder

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// PushOptions says what to push where.
type PushOptions struct {
	Name      string
	Reference string
	Store     *image.Store
	CacheDir  string
	// Sign signs what was sent; nil: it is not signed.
	Sign *cosign.PrivateKey
	// Annotations are added to the manifest's.
	Annotations map[string]string
	// Attach are documents about the image, such as its SBOM, which are sent with
	// it and signed, too; they are written when its digest is known.
	Attach func(digest string) ([]oci.Attachment, error)
	// Progress is called with the number of bytes sent; it may be nil.
	Progress func(done, total int64)
}

// Push sends an image to a registry as a container image, which every container
// tool can run. It returns the digest of its manifest. An image whose layers the
// cache does not have is sent as one layer.
func Push(ctx context.Context, o PushOptions) (string, error) {
	var digest string
	err := asContainer(ctx, o, func(config []byte, annotations map[string]string, layers []oci.Layer) (err error) {
		digest, err = oci.Push(ctx, o.Reference, config, annotations, layers, o.Progress)
		return err
	})
	if err != nil {
		return "", err
	}
	return digest, o.complete(ctx, digest)
}

// complete signs what was sent, if it is to be signed, and sends what goes with it.
func (o PushOptions) complete(ctx context.Context, digest string) error {
	if err := o.sign(ctx, digest); err != nil || o.Attach == nil {
		return err
	}
	err := o.attach(ctx, digest)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s was sent, but not what goes with it: %w", digest, err)
	}
	return nil
}

func (o PushOptions) attach(ctx context.Context, digest string) error {
	documents, err := o.Attach(digest)
	if err != nil {
		return err
	}
	subject, err := oci.Describe(ctx, o.Reference, digest)
	if err != nil {
		return err
	}
	for _, d := range documents {
		attached, err := oci.Attach(ctx, o.Reference, subject, d)
		if err != nil {
			return err
		}
		if err := o.sign(ctx, attached); err != nil {
			return err
		}
	}
	return nil
}

func (o PushOptions) sign(ctx context.Context, digest string) error {
	if o.Sign == nil {
		return nil
	}
	err := oci.Sign(ctx, o.Reference, digest, o.Sign)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s was sent, but has no signature: %w", digest, err)
	}
	return nil
}

// PushIndex sends images of several platforms to a registry as one index, from
// which each takes its own. The options' Name is not used.
func PushIndex(ctx context.Context, names []string, o PushOptions) (string, error) {
	var images []oci.Pushed
	push := func() (digest string, err error) { return oci.PushIndex(ctx, o.Reference, images, o.Progress) }
	// Each image is in use until all are sent.
	for _, name := range slices.Backward(names) {
		next := push
		push = func() (digest string, err error) {
			o.Name = name
			err = asContainer(ctx, o, func(config []byte, annotations map[string]string, layers []oci.Layer) (err error) {
				images = append(images, oci.Pushed{Config: config, Annotations: annotations, Layers: layers})
				digest, err = next()
				return err
			})
			return digest, err
		}
	}
	digest, err := push()
	if err != nil {
		return "", err
	}
	return digest, o.complete(ctx, digest)
}

// Save writes an image as the files of a container image, which is what Push
// sends. The options have no Reference.
func Save(ctx context.Context, to oci.Destination, o PushOptions) (string, error) {
	var digest string
	err := asContainer(ctx, o, func(config []byte, annotations map[string]string, layers []oci.Layer) (err error) {
		digest, err = oci.Save(ctx, to, config, annotations, layers)
		return err
	})
	return digest, err
}

// asContainer gives an image as a container image.
func asContainer(ctx context.Context, o PushOptions, do func(config []byte, annotations map[string]string, layers []oci.Layer) error) error {
	h, err := o.Store.Open(o.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	img := *h.Image
	limit, err := o.Store.MaxSize(0)
	if err != nil {
		return err
	}
	layers, err := localImage{h, o.CacheDir, limit}.layers(ctx, &img)
	if err != nil {
		return fmt.Errorf("the layers of image %q: %w", o.Name, err)
	}
	config, err := containerConfig(&img)
	if err != nil {
		return fmt.Errorf("the configuration of image %q: %w", o.Name, err)
	}
	err = do(config, annotationsOf(&img, config, o.Annotations), layers)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// annotationPrefix is of those that the OCI image specification defines.
const annotationPrefix = "org.opencontainers.image."

// annotationsOf are those of an image's manifest. One that is the container image
// that it was made from keeps those of that, so that its digest stays; another one
// says when it was made, and what its labels say.
func annotationsOf(img *image.Image, config []byte, more map[string]string) map[string]string {
	var all map[string]string
	if img.Container != nil {
		all = maps.Clone(img.Container.Annotations)
	}
	add := func(key, value string) {
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
	}
	if img.Container == nil || !bytes.Equal(config, img.Container.Config) {
		add(annotationPrefix+"created", img.Created.UTC().Format(time.RFC3339))
		for key, value := range img.Config.Labels {
			if strings.HasPrefix(key, annotationPrefix) {
				add(key, value)
			}
		}
	}
	for key, value := range more {
		add(key, value)
	}
	return all
}
