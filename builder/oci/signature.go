package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/cosign"
)

// maxSignatures is how many signatures of one image are looked at.
const maxSignatures = 128

// ErrNotSigned is wrapped when an image has no signature of a key.
var ErrNotSigned = errors.New("not signed by that key")

// Sign signs what a reference names in a registry, by the digest of its manifest.
// The signature is beside it in the repository, as cosign keeps it. Those that are
// there stay.
func Sign(ctx context.Context, reference, digest string, key *cosign.PrivateKey) error {
	ref, err := inRegistry(reference)
	if err != nil {
		return err
	}
	public, err := key.Public()
	if err != nil {
		return err
	}
	have, layers, err := signatures(ctx, reference, digest)
	if err != nil {
		return fmt.Errorf("signing %q: %w", reference, err)
	}
	for _, s := range have {
		if public.Verify(s, digest) == nil {
			return nil // it is signed already
		}
	}
	if len(layers) >= maxSignatures {
		return fmt.Errorf("signing %q: %w: it has %d signatures already", reference, ErrInvalid, len(layers))
	}
	s, err := key.Sign(ref.Context().Name(), digest)
	if err != nil {
		return err
	}
	layer, err := signatureLayer(s)
	if err != nil {
		return err
	}
	if _, err := Push(ctx, signatureTag(ref.Context().Name(), digest), []byte("{}"), nil, append(layers, layer), nil); err != nil {
		return fmt.Errorf("signing %q: %w", reference, err)
	}
	return nil
}

// Verify finds what a reference names in a registry now, and returns the digest of
// its manifest if it has a signature of the key.
func Verify(ctx context.Context, reference string, key *cosign.PublicKey) (digest string, err error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return "", err
	}
	c, err := dial(ctx, ref.Context())
	if err != nil {
		return "", err
	}
	defer c.close()
	_, d, err := c.manifest(ctx, ref.Identifier())
	if err != nil {
		return "", err
	}
	digest = d.Digest.String()
	found, _, err := signatures(ctx, reference, digest)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%w: %s has no signature at all", ErrNotSigned, digest)
	}
	for _, s := range found {
		if err = key.Verify(s, digest); err == nil {
			return digest, nil
		}
	}
	return "", fmt.Errorf("%w: none of %d signatures of %s: %w", ErrNotSigned, len(found), digest, err)
}

// signatures reads those of a manifest; none where there are none.
func signatures(ctx context.Context, reference, digest string) ([]cosign.Signature, []Layer, error) {
	ref, err := inRegistry(reference)
	if err != nil {
		return nil, nil, err
	}
	c, err := dial(ctx, ref.Context())
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	raw, _, err := c.manifest(ctx, tagOf(digest))
	if errors.Is(err, ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("its signatures: %w", err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its signatures: %w", ErrInvalid, err)
	}
	if len(m.Layers) > maxSignatures {
		return nil, nil, fmt.Errorf("%w: it has %d signatures, of which %d would be looked at", ErrInvalid, len(m.Layers), maxSignatures)
	}
	var found []cosign.Signature
	var layers []Layer
	for _, l := range m.Layers {
		if l.Size < 0 || l.Size > cosign.MaxPayload || l.Digest.Algorithm != "sha256" {
			return nil, nil, fmt.Errorf("%w: a signature of %d bytes", ErrInvalid, l.Size)
		}
		r := c.blob(ctx, l)
		text, err := readBounded(r, "a signature")
		r.Close()
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, Layer{MediaType: string(l.MediaType), Digest: l.Digest, DiffID: l.Digest, Size: l.Size, Annotations: l.Annotations,
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }})
		if s := l.Annotations[cosign.Annotation]; s != "" && l.MediaType == cosign.MediaType {
			found = append(found, cosign.Signature{Payload: text, Base64: s})
		}
	}
	return found, layers, nil
}

func signatureLayer(s cosign.Signature) (Layer, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(s.Payload))
	return Layer{MediaType: cosign.MediaType, Digest: digest, DiffID: digest, Size: size, Annotations: map[string]string{cosign.Annotation: s.Base64},
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.Payload)), nil }}, err
}

// signatureTag is where the signatures of a manifest are.
func signatureTag(repository, digest string) string { return repository + ":" + tagOf(digest) }

func tagOf(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }
