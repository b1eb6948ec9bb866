package oci

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Pushed is an image of an index.
type Pushed struct {
	Config      []byte
	Annotations map[string]string
	Layers      []Layer
}

// PushIndex sends images of several platforms to a registry as one index, and
// returns its digest.
func PushIndex(ctx context.Context, reference string, images []Pushed, progress func(done, total int64)) (string, error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	seen := map[string]bool{}
	for _, p := range images {
		m, err := containerManifest(ctx, p.Config, p.Annotations, p.Layers)
		if err != nil {
			return "", fmt.Errorf("pushing to %q: %w", reference, err)
		}
		img, err := partial.CompressedToImage(m)
		if err != nil {
			return "", err
		}
		var platform v1.Platform
		if err := json.Unmarshal(p.Config, &platform); err != nil {
			return "", err
		}
		if seen[platform.String()] {
			return "", fmt.Errorf("pushing to %q: two images are for %s", reference, platform)
		}
		seen[platform.String()] = true
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	if err := remote.WriteIndex(ref, index, remoteOptions(ctx, ref.Context().Registry, progress)...); err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, explain(err))
	}
	digest, err := index.Digest()
	return digest.String(), err
}
