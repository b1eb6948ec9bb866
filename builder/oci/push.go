package oci

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push sends an image to a registry and returns the digest of its manifest.
// Each layer has a Digest and a Size.
func Push(ctx context.Context, reference string, config v1.ConfigFile, layers []Layer, progress func(done, total int64)) (string, error) {
	ref, err := name.ParseReference(strings.TrimPrefix(reference, "docker://"))
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, err)
	}
	history := config.History
	config.History, config.RootFS = nil, v1.RootFS{Type: "layers"}
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), &config)
	if err != nil {
		return "", err
	}
	next := 0
	var addenda []mutate.Addendum
	for _, h := range history {
		a := mutate.Addendum{History: h}
		if !h.EmptyLayer && next < len(layers) {
			if a.Layer, err = pushable(layers[next]); err != nil {
				return "", err
			}
			next++
		} else if !h.EmptyLayer {
			continue
		}
		addenda = append(addenda, a)
	}
	for _, l := range layers[next:] {
		layer, err := pushable(l)
		if err != nil {
			return "", err
		}
		addenda = append(addenda, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "lumina"}})
	}
	if img, err = mutate.Append(img, addenda...); err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remoteOptions(ctx, progress)...); err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, explain(err))
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// stored is a layer as go-containerregistry wants it.
type stored struct{ Layer }

func pushable(l Layer) (v1.Layer, error) {
	return partial.CompressedToLayer(stored{l})
}

func (s stored) Digest() (v1.Hash, error) { return s.Layer.Digest, nil }
func (s stored) DiffID() (v1.Hash, error) { return s.Layer.DiffID, nil }
func (s stored) Size() (int64, error)     { return s.Layer.Size, nil }
func (s stored) Compressed() (io.ReadCloser, error) {
	return s.Open(context.Background())
}

func (s stored) MediaType() (types.MediaType, error) {
	if s.Layer.MediaType == "" {
		return types.OCILayer, nil
	}
	return types.MediaType(s.Layer.MediaType), nil
}
