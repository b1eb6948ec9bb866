package oci

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Artifact is something that a registry keeps and that is not a container image: a
// manifest with a configuration of another type (OCI image specification 1.1,
// manifest.md, "Guidelines for Artifact Usage").
type Artifact struct {
	ConfigType  string
	Config      []byte
	Blobs       []Blob
	Type        string // of the whole; "" is that of the configuration
	Annotations map[string]string
	Subject     *v1.Descriptor // what it refers to; nil: to nothing
	close       func()
}

// Blob is a file of an artifact.
type Blob struct {
	Name, MediaType string
	Digest          v1.Hash
	Size            int64 // bytes
	Annotations     map[string]string
	// Open reads it. Of a registry's the end is io.EOF only when digest and size
	// are right.
	Open func() (io.ReadCloser, error)
}

// ErrNotArtifact is wrapped when a reference is not of the wanted kind.
var ErrNotArtifact = errors.New("not such an artifact")

const (
	// titleAnnotation names the file that a blob is.
	titleAnnotation = "org.opencontainers.image.title"
	// maxConfig bounds an artifact's configuration, in bytes.
	maxConfig = 4 << 20
)

// PushArtifact sends an artifact to a registry and returns its manifest's digest.
func PushArtifact(ctx context.Context, reference string, a Artifact, progress func(done, total int64)) (string, error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, err)
	}
	pushed, err := newManifest(a)
	if err != nil {
		return "", err
	}
	img, err := partial.CompressedToImage(pushed)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remoteOptions(ctx, ref.Context().Registry, progress)...); err != nil {
		return "", fmt.Errorf("pushing to %q: %w", reference, explain(err))
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// PullArtifact finds an artifact in a registry, by the digest of its manifest if
// that is not empty. Its blobs are fetched when they are opened.
func PullArtifact(ctx context.Context, reference, configType, digest string) (*Artifact, error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, ref.Context())
	if err != nil {
		return nil, err
	}
	raw, d, err := c.manifest(ctx, cmp.Or(digest, ref.Identifier()))
	if err != nil {
		c.close()
		return nil, err
	}
	a := &Artifact{ConfigType: configType, close: c.close}
	if err := a.read(ctx, c, raw, d); err != nil {
		c.close()
		return nil, err
	}
	return a, nil
}

func (a *Artifact) read(ctx context.Context, c *client, raw []byte, d v1.Descriptor) error {
	if d.MediaType != types.OCIManifestSchema1 {
		return ErrNotArtifact
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if string(manifest.Config.MediaType) != a.ConfigType {
		return ErrNotArtifact
	}
	if manifest.Config.Size > maxConfig {
		return fmt.Errorf("%w: a configuration of %d bytes", ErrInvalid, manifest.Config.Size)
	}
	r := c.blob(ctx, manifest.Config)
	defer r.Close()
	if a.Config, err = readBounded(r, "the configuration"); err != nil {
		return err
	}
	for _, l := range manifest.Layers {
		a.Blobs = append(a.Blobs, Blob{Name: l.Annotations[titleAnnotation], MediaType: string(l.MediaType), Digest: l.Digest, Size: l.Size, Annotations: l.Annotations,
			Open: func() (io.ReadCloser, error) { return c.blob(ctx, l), nil }})
	}
	return nil
}

// Close ends what was opened of a registry.
func (a *Artifact) Close() {
	if a.close != nil {
		a.close()
	}
}

// manifest is an artifact as go-containerregistry wants it.
type manifest struct {
	raw, config []byte
	blobs       map[v1.Hash]Blob
}

func newManifest(a Artifact) (*manifest, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(a.Config))
	if err != nil {
		return nil, err
	}
	m := &manifest{config: a.Config, blobs: map[v1.Hash]Blob{}}
	described := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config:       v1.Descriptor{MediaType: types.MediaType(a.ConfigType), Digest: digest, Size: size},
		ArtifactType: cmp.Or(a.Type, a.ConfigType), Annotations: a.Annotations, Subject: a.Subject}
	for _, b := range a.Blobs {
		m.blobs[b.Digest] = b
		d := v1.Descriptor{MediaType: types.MediaType(b.MediaType), Digest: b.Digest, Size: b.Size, Annotations: maps.Clone(b.Annotations)}
		if b.Name != "" {
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[titleAnnotation] = b.Name
		}
		described.Layers = append(described.Layers, d)
	}
	m.raw, err = json.Marshal(described)
	return m, err
}

// bytesBlob is a document as a blob.
func bytesBlob(a Attachment) Blob {
	sum := sha256.Sum256(a.Body)
	return Blob{MediaType: a.Type, Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, Size: int64(len(a.Body)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a.Body)), nil }}
}

func (m *manifest) RawConfigFile() ([]byte, error)    { return m.config, nil }
func (m *manifest) RawManifest() ([]byte, error)      { return m.raw, nil }
func (*manifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (m *manifest) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	b, ok := m.blobs[h]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", h, ErrNotFound)
	}
	return blobLayer{b}, nil
}

type blobLayer struct{ b Blob }

func (l blobLayer) Digest() (v1.Hash, error)            { return l.b.Digest, nil }
func (l blobLayer) Size() (int64, error)                { return l.b.Size, nil }
func (l blobLayer) MediaType() (types.MediaType, error) { return types.MediaType(l.b.MediaType), nil }
func (l blobLayer) Compressed() (io.ReadCloser, error)  { return l.b.Open() }
