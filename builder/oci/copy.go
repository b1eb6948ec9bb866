package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/abdul-abdi/lumina/builder/reference"
)

// maxReferrers is how much that refers to one image is copied with it.
const maxReferrers = 64

// CopyOptions of Copy.
type CopyOptions struct {
	// MaxSize is how many bytes an image may have that is written to a layout, or 0.
	MaxSize  int64
	Progress func(done, total int64) // may be nil
}

// Copy copies what a reference names, as it is: an image, or an index with the
// images of all platforms. Each is a registry's or a layout's. From a registry to
// another one go its signatures, and what refers to it, such as its SBOM, with it.
// It returns the digest.
func Copy(ctx context.Context, from, to string, o CopyOptions) (string, error) {
	c := &copier{ctx: ctx, maxSize: o.MaxSize}
	digest, err := c.copy(from, to, o.Progress)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("copying %q to %q: %w", from, to, explain(err))
	}
	return digest, nil
}

// CheckCopy says what is wrong with the references of a copy, without looking.
func CheckCopy(from, to string) error {
	for _, text := range []string{from, to} {
		r, err := reference.Parse(text)
		if err != nil {
			return err
		}
		if r.Kind != reference.Registry && r.Kind != reference.Layout {
			return fmt.Errorf("%q: images copy takes HOST/NAME:TAG or oci:DIR[:TAG]; images load reads an archive, and images save writes one", text)
		}
	}
	return nil
}

type copier struct {
	ctx     context.Context
	maxSize int64
}

// artifact is an image or an index.
type artifact struct {
	image v1.Image
	index v1.ImageIndex
}

func (a artifact) described() partial.Describable {
	if a.index != nil {
		return a.index
	}
	return a.image
}

func (c *copier) copy(from, to string, progress func(done, total int64)) (string, error) {
	if err := CheckCopy(from, to); err != nil {
		return "", err
	}
	source, err := c.open(from)
	if err != nil {
		return "", err
	}
	digest, err := source.described().Digest()
	if err != nil {
		return "", err
	}
	if err := c.write(source, to, progress); err != nil {
		return "", err
	}
	there, errFrom := inRegistry(from)
	here, errTo := inRegistry(to)
	if errFrom == nil && errTo == nil {
		err = c.copyReferrers(there.Context(), here.Context(), digest)
	}
	return digest.String(), err
}

func (c *copier) open(text string) (artifact, error) {
	r, err := reference.Parse(text)
	if err != nil {
		return artifact{}, err
	}
	if r.Kind == reference.Layout {
		return openLayoutAs(c.ctx, r.Rest)
	}
	ref, err := name.ParseReference(r.Rest)
	if err != nil {
		return artifact{}, err
	}
	return c.get(ref)
}

func (c *copier) get(ref name.Reference) (a artifact, err error) {
	d, err := remote.Get(ref, remoteOptions(c.ctx, ref.Context().Registry, nil)...)
	if err != nil {
		return a, err
	}
	switch {
	case d.MediaType.IsIndex():
		a.index, err = d.ImageIndex()
	case d.MediaType.IsImage():
		a.image, err = d.Image()
	default:
		err = fmt.Errorf("%w: it is of type %.80q", ErrInvalid, d.MediaType)
	}
	return a, err
}

func openLayoutAs(ctx context.Context, rest string) (a artifact, err error) {
	dir, tag := reference.SplitTag(rest)
	err = checkLayout(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("%w: there is no index.json in %q: not an OCI layout", ErrInvalid, dir)
	}
	if err != nil {
		return a, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return a, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return a, err
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		if tag == "" || d.Annotations[refName] == tag {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return a, fmt.Errorf("the layout %q has %d images of tag %q; name one with oci:DIR:TAG", dir, len(found), tag)
	}
	if err := checkManifests(dir, found[0]); err != nil {
		return a, err
	}
	if found[0].MediaType.IsIndex() {
		a.index, err = index.ImageIndex(found[0].Digest)
	} else {
		a.image, err = index.Image(found[0].Digest)
	}
	if err == nil {
		err = checkBlobs(ctx, dir, a)
	}
	return a, err
}

func (c *copier) write(a artifact, to string, progress func(done, total int64)) error {
	r, err := reference.Parse(to)
	if err != nil {
		return err
	}
	if r.Kind == reference.Layout {
		var s survey
		if err := s.artifact(a); err != nil {
			return err
		}
		if c.maxSize > 0 && s.bytes > c.maxSize {
			return fmt.Errorf("%w of %d bytes: it has %d", ErrTooLarge, c.maxSize, s.bytes)
		}
		return writeLayoutAs(c.ctx, a, s.blobs, r.Rest)
	}
	ref, err := name.ParseReference(r.Rest)
	if err != nil {
		return err
	}
	return c.put(a, ref, progress)
}

func (c *copier) put(a artifact, ref name.Reference, progress func(done, total int64)) error {
	if err := new(survey).artifact(a); err != nil {
		return err
	}
	options := remoteOptions(c.ctx, ref.Context().Registry, progress)
	if a.index != nil {
		return remote.WriteIndex(ref, a.index, options...)
	}
	return remote.Write(ref, a.image, options...)
}

// writeLayoutAs puts an image, which has these blobs, into a layout, which is made if there
// is none, in the place of what has its tag.
func writeLayoutAs(ctx context.Context, a artifact, blobs []v1.Hash, rest string) error {
	d, err := ParseDestination("oci:" + rest) // it need not be there
	if err != nil {
		return err
	}
	if err := checkOwn(d.Path); err != nil {
		return err
	}
	err = checkLayout(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	own, err := a.described().Digest()
	if err != nil {
		return err
	}
	// What has the name and the size of a blob is taken for it.
	for _, h := range append(blobs, own) {
		if _, err := hasBlob(ctx, d.Path, h); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if err := os.Remove(filepath.Join(d.Path, blobName(h))); err != nil {
				return err
			}
		}
	}
	path, err := layout.FromPath(d.Path)
	if err != nil {
		if path, err = layout.Write(d.Path, empty.Index); err != nil {
			return err
		}
	}
	var options []layout.Option
	if d.Tag != "" {
		options = append(options, layout.WithAnnotations(map[string]string{refName: d.Tag}))
	}
	same := func(have v1.Descriptor) bool { return have.Annotations[refName] == d.Tag }
	if a.index != nil {
		return path.ReplaceIndex(a.index, match.Matcher(same), options...)
	}
	return path.ReplaceImage(a.image, match.Matcher(same), options...)
}

// copyReferrers copies the signatures of a manifest and what refers to it.
func (c *copier) copyReferrers(from, to name.Repository, digest v1.Hash) error {
	for _, end := range []string{"", ".att", ".sbom"} { // cosign's tags
		tag := tagOf(digest.String())
		if end != "" {
			tag = tag[:len(tag)-len(".sig")] + end
		}
		a, err := c.get(from.Tag(tag))
		if isMissing(err) {
			continue
		}
		if err == nil {
			err = c.put(a, to.Tag(tag), nil)
		}
		if err != nil {
			return fmt.Errorf("its signatures: %w", err)
		}
	}
	index, err := remote.Referrers(from.Digest(digest.String()), remoteOptions(c.ctx, from.Registry, nil)...)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("what refers to it: %w", err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("what refers to it: %w", err)
	}
	if len(m.Manifests) > maxReferrers {
		return fmt.Errorf("%w: %d manifests refer to it, of which %d would be copied", ErrInvalid, len(m.Manifests), maxReferrers)
	}
	for _, d := range m.Manifests {
		a, err := c.get(from.Digest(d.Digest.String()))
		if err == nil {
			err = c.put(a, to.Digest(d.Digest.String()), nil)
		}
		if err == nil {
			err = c.copySignature(from, to, d.Digest)
		}
		if err != nil {
			return fmt.Errorf("what refers to it: %w", err)
		}
	}
	return nil
}

// copySignature copies that of what refers to something.
func (c *copier) copySignature(from, to name.Repository, digest v1.Hash) error {
	a, err := c.get(from.Tag(tagOf(digest.String())))
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.put(a, to.Tag(tagOf(digest.String())), nil)
}

func isMissing(err error) bool {
	var t *transport.Error
	return errors.As(err, &t) && t.StatusCode == http.StatusNotFound
}

// Attachment is a document about an image, which a registry keeps beside it.
type Attachment struct {
	Type string // its media type
	Body []byte
}

// Attach sends a document that refers to a manifest of a repository, by digest and
// size: OCI image specification 1.1, "subject". It returns the digest of its own.
func Attach(ctx context.Context, ref string, subject v1.Descriptor, a Attachment) (string, error) {
	r, err := inRegistry(ref)
	if err != nil {
		return "", err
	}
	m, err := newManifest(Artifact{ConfigType: emptyType, Config: []byte("{}"), Type: a.Type, Subject: &subject, Blobs: []Blob{bytesBlob(a)}})
	if err != nil {
		return "", err
	}
	img, err := partial.CompressedToImage(m)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	if err := remote.Write(r.Context().Digest(digest.String()), img, remoteOptions(ctx, r.Context().Registry, nil)...); err != nil {
		return "", fmt.Errorf("attaching a %s to %q: %w", a.Type, ref, explain(err))
	}
	return digest.String(), nil
}

// emptyType is of a configuration that says nothing (OCI image specification 1.1).
const emptyType = "application/vnd.oci.empty.v1+json"

// Describe finds what a digest names in the repository of a reference.
func Describe(ctx context.Context, ref, digest string) (v1.Descriptor, error) {
	r, err := inRegistry(ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := remote.Head(r.Context().Digest(digest), remoteOptions(ctx, r.Context().Registry, nil)...)
	if err != nil {
		return v1.Descriptor{}, explain(err)
	}
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
}
