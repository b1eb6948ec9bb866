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
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is a container image of one platform.
type Image struct {
	Reference string
	Digest    string // of the manifest; "" where there is none
	Config    *v1.ConfigFile
	Layers    []Layer // lowest first
	close     func() error
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
	// Open begins to read the stored bytes. It may wait for them.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Options of Open.
type Options struct {
	Platform v1.Platform
	// CacheDir keeps what was fetched from registries.
	CacheDir string
	// Progress is told how much of a blob was fetched. It may be nil; it is
	// called from several goroutines.
	Progress func(digest string, done, total int64)
}

var (
	// ErrNotFound is wrapped when a reference names nothing.
	ErrNotFound = errors.New("not found")
	// ErrPlatform is wrapped when an image is not for the platform asked for.
	ErrPlatform = errors.New("wrong platform")
	// ErrInvalid is wrapped when what a reference names is not an image.
	ErrInvalid = errors.New("invalid image")
)

// Limits on what is read into memory, in bytes, and on layers.
const (
	maxManifest = 8 << 20
	maxLayers   = 512
)

// Open finds the image of a reference: oci:DIR[:TAG], oci-archive:FILE[:TAG],
// docker-archive:FILE[:TAG], or one of a registry, with docker:// or without.
func Open(ctx context.Context, reference string, o Options) (*Image, error) {
	kind, rest, _ := strings.Cut(reference, ":")
	var img *Image
	var err error
	switch kind {
	case "oci":
		img, err = openLayout(rest, o)
	case "oci-archive":
		img, err = openLayoutArchive(ctx, rest, o)
	case "docker-archive":
		img, err = openDockerArchive(ctx, rest, o)
	default:
		img, err = openRegistry(ctx, strings.TrimPrefix(reference, "docker://"), o)
	}
	if err != nil {
		return nil, fmt.Errorf("reading image %q: %w", reference, err)
	}
	img.Reference = reference
	if err := img.check(o.Platform); err != nil {
		img.Close()
		return nil, fmt.Errorf("reading image %q: %w", reference, err)
	}
	return img, nil
}

func (i *Image) check(want v1.Platform) error {
	if i.Config.OS != "" && i.Config.OS != "linux" {
		return fmt.Errorf("%w: the image is for %s, and only Linux images can be booted", ErrPlatform, i.Config.OS)
	}
	if got := i.Config.Architecture; got != want.Architecture {
		return fmt.Errorf("%w: the image is for %q, %q was asked for; choose with --platform linux/%s", ErrPlatform, got, want.Architecture, got)
	}
	if len(i.Layers) > maxLayers {
		return fmt.Errorf("%w: it has %d layers", ErrInvalid, len(i.Layers))
	}
	if n := len(i.Config.RootFS.DiffIDs); n != len(i.Layers) {
		return fmt.Errorf("%w: %d layers and %d digests of them", ErrInvalid, len(i.Layers), n)
	}
	for n, l := range i.Layers {
		i.Layers[n].DiffID = i.Config.RootFS.DiffIDs[n]
		if i.Layers[n].DiffID.Algorithm != "sha256" || (l.Digest != v1.Hash{} && l.Digest.Algorithm != "sha256") {
			return fmt.Errorf("%w: layer %d is not named by sha256", ErrInvalid, n)
		}
		if !types.MediaType(l.MediaType).IsDistributable() && l.MediaType != "" {
			return fmt.Errorf("%w: layer %d has media type %q, which may not be distributed", ErrInvalid, n, l.MediaType)
		}
	}
	return nil
}

// pick chooses the manifest of a platform from an index.
func pick(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	var have []string
	for _, m := range index.Manifests {
		if m.Platform == nil || (m.Platform.OS == "unknown" && m.Platform.Architecture == "unknown") {
			continue // not said, or an attestation
		}
		if m.Platform.OS == want.OS && m.Platform.Architecture == want.Architecture &&
			(want.Variant == "" || m.Platform.Variant == want.Variant) {
			return m, nil
		}
		have = append(have, m.Platform.String())
	}
	if len(index.Manifests) == 1 && len(have) == 0 {
		return index.Manifests[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("%w: it has none for %s; it has: %s", ErrPlatform, want, strings.Join(have, ", "))
}
