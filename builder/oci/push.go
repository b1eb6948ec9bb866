package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push sends an image to a registry and returns the digest of its manifest.
// config is its configuration, but for the digests of its layers; annotations are
// the manifest's. Each layer has a Digest and a Size.
func Push(ctx context.Context, reference string, config []byte, annotations map[string]string, layers []Layer, progress func(done, total int64)) (string, error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, err)
	}
	m, err := containerManifest(ctx, config, annotations, layers)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, err)
	}
	img, err := partial.CompressedToImage(m)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remoteOptions(ctx, ref.Context().Registry, progress)...); err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, explain(err))
	}
	pushed, err := img.Digest()
	return pushed.String(), err
}

// containerManifest is an image as a registry or a layout has it.
func containerManifest(ctx context.Context, config []byte, annotations map[string]string, layers []Layer) (*manifest, error) {
	config, err := withDiffIDs(config, layers)
	if err != nil {
		return nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	m := &manifest{config: config, blobs: map[v1.Hash]Blob{}}
	described := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: annotations, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digest, Size: size}}
	for n, l := range layers {
		if t := types.MediaType(l.MediaType); !t.IsDistributable() && t != "" {
			return nil, fmt.Errorf("%w: layer %d has media type %.80q, which may not be distributed", ErrInvalid, n+1, l.MediaType)
		}
		d := v1.Descriptor{MediaType: ociType(l.MediaType), Digest: l.Digest, Size: l.Size, Annotations: l.Annotations}
		described.Layers = append(described.Layers, d)
		m.blobs[l.Digest] = Blob{MediaType: string(d.MediaType), Digest: d.Digest, Size: d.Size, Open: func() (io.ReadCloser, error) { return l.Open(ctx) }}
	}
	m.raw, err = json.Marshal(described)
	return m, err
}

// withDiffIDs is a configuration with the digests of an image's layers.
func withDiffIDs(config []byte, layers []Layer) ([]byte, error) {
	var fields, rootfs map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["rootfs"], &rootfs); err != nil || rootfs == nil {
		rootfs = map[string]json.RawMessage{}
	}
	diffIDs := make([]string, len(layers))
	for n, l := range layers {
		diffIDs[n] = l.DiffID.String()
	}
	var err error
	if rootfs["diff_ids"], err = json.Marshal(diffIDs); err != nil {
		return nil, err
	}
	rootfs["type"] = json.RawMessage(`"layers"`)
	if fields["rootfs"], err = json.Marshal(rootfs); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// ociType is what the OCI specification calls a layer of Docker's: the manifest is
// one of the former.
func ociType(mediaType string) types.MediaType {
	switch t := types.MediaType(mediaType); t {
	case "", types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	default:
		return t
	}
}
