// Package oci reads container images from where they are: a registry, an OCI
// layout (a directory or a tar archive of one), or an archive of docker save.
// Layers are streams; nothing is unpacked.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/reference"
)

// Image is a container image of one platform.
type Image struct {
	Reference string
	Digest    string // of the manifest; "" where there is none
	Config    *v1.ConfigFile
	RawConfig []byte // Config as it is stored, with all that is in it
	// Annotations are the manifest's.
	Annotations map[string]string
	Layers      []Layer // lowest first
	close       func() error
}

// Close frees what the image was read from.
func (i *Image) Close() error {
	if i.close == nil {
		return nil
	}
	return i.close()
}

// Layer is one layer as it is stored: a tar archive, possibly compressed.
type Layer struct {
	MediaType string
	Digest    v1.Hash // of the stored bytes; zero where only DiffID is known
	DiffID    v1.Hash // of the uncompressed archive
	Size      int64   // bytes as stored; -1 where unknown
	// Annotations are those of its descriptor in the manifest.
	Annotations map[string]string
	// Open begins to read the stored bytes. It may wait for them.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Options of Open.
type Options struct {
	Platform v1.Platform
	// Digest is that of the manifest to fetch from a registry, whatever the
	// reference names there now; "" for that.
	Digest string
	// CacheDir keeps what was fetched from registries.
	CacheDir string
	// MaxSize bounds what is fetched, and what an archive is uncompressed to, in
	// bytes; 0: nothing does.
	MaxSize int64
	// Progress is called with how much of a blob was fetched. It may be nil; it is
	// called from several goroutines.
	Progress func(digest string, done, total int64)
}

var (
	// ErrNotFound is wrapped when a reference names nothing.
	ErrNotFound = errors.New("not found")
	// ErrPlatform is wrapped when an image is not for the platform asked for.
	ErrPlatform = errors.New("wrong platform")
	// ErrTooLarge is wrapped when an image has more than Options.MaxSize.
	ErrTooLarge = errors.New("larger than the limit")
	// ErrInvalid is wrapped when what a reference names is not an image.
	ErrInvalid = errors.New("invalid image")
)

// Limits on what is read into memory, in bytes and in parts of a list or an object, and
// on layers.
const (
	maxManifest = 8 << 20
	maxParts    = 128 << 10
	maxLayers   = 512
)

// Open finds the image of a reference: oci:DIR[:TAG], oci-archive:FILE[:TAG],
// docker-archive:FILE[:TAG], or one of a registry, with docker:// or without.
func Open(ctx context.Context, text string, o Options) (*Image, error) {
	r, err := reference.Parse(text)
	if err != nil {
		return nil, err
	}
	var img *Image
	switch r.Kind {
	case reference.Layout:
		img, err = openLayout(ctx, r.Rest, o)
	case reference.LayoutArchive:
		img, err = openLayoutArchive(ctx, r.Rest, o)
	case reference.DockerArchive:
		img, err = openDockerArchive(ctx, r.Rest, o)
	case reference.Registry:
		img, err = openRegistry(ctx, r.Rest, o)
	default:
		err = fmt.Errorf("%w: %s is not a container image", ErrInvalid, r.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("reading image %q: %w", text, err)
	}
	img.Reference = text
	if err := img.check(o); err != nil {
		img.Close()
		return nil, fmt.Errorf("reading image %q: %w", text, err)
	}
	return img, nil
}

func (i *Image) check(o Options) error {
	want := normalize(o.Platform)
	got := normalize(v1.Platform{OS: i.Config.OS, Architecture: i.Config.Architecture, Variant: i.Config.Variant})
	if got.OS != "" && got.OS != "linux" {
		return fmt.Errorf("%w: the image is for %.80q, and only Linux images can be booted", ErrPlatform, i.Config.OS)
	}
	// One that does not say is taken for what was asked for, as by other tools.
	if got.Architecture != "" && got.Architecture != want.Architecture {
		return fmt.Errorf("%w: the image is for %.80q, %q was asked for; choose with --platform linux/%.80s", ErrPlatform, i.Config.Architecture, want.Architecture, got.Architecture)
	}
	if len(i.Layers) > maxLayers {
		return fmt.Errorf("%w: it has %d layers", ErrInvalid, len(i.Layers))
	}
	if n := len(i.Config.RootFS.DiffIDs); n != len(i.Layers) {
		return fmt.Errorf("%w: %d layers and %d digests of them", ErrInvalid, len(i.Layers), n)
	}
	total := int64(0)
	for n, l := range i.Layers {
		if l.Size < 0 && l.Digest != (v1.Hash{}) {
			return fmt.Errorf("%w: layer %d has a size of %d", ErrInvalid, n, l.Size)
		}
		// Each alone, too: a sum of sizes may be too large for a number.
		if total += max(l.Size, 0); o.MaxSize > 0 && (total > o.MaxSize || l.Size > o.MaxSize) {
			return fmt.Errorf("%w of %d bytes: its layers have more, compressed", ErrTooLarge, o.MaxSize)
		}
		i.Layers[n].DiffID = i.Config.RootFS.DiffIDs[n]
		if i.Layers[n].DiffID.Algorithm != "sha256" || (l.Digest != v1.Hash{} && l.Digest.Algorithm != "sha256") {
			return fmt.Errorf("%w: layer %d is not named by sha256", ErrInvalid, n)
		}
		if strings.Contains(l.MediaType, "encrypted") {
			return fmt.Errorf("%w: layer %d is encrypted (%.80q): decrypt the image with skopeo copy --decryption-key", ErrInvalid, n, l.MediaType)
		}
	}
	return nil
}
