package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// files is where the parts of a local image are.
type files interface {
	open(name string) (io.ReadCloser, error) // fs.ErrNotExist when there is none
	Close() error
}

// dirFiles is a directory; names cannot leave it.
type dirFiles struct{ root *os.Root }

// open opens a file, or one within that a link leads to. A FIFO would be waited for.
func (d dirFiles) open(name string) (io.ReadCloser, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a file", ErrInvalid, name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d dirFiles) Close() error { return d.root.Close() }

func openLayout(ctx context.Context, s string, o Options) (*Image, error) {
	path, tag := reference.SplitTag(s)
	root, err := statefile.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("OCI layout %q: %w", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("opening OCI layout: %w", err)
	}
	return readLayout(ctx, dirFiles{root}, tag, o)
}

func openLayoutArchive(ctx context.Context, s string, o Options) (*Image, error) {
	path, tag := reference.SplitTag(s)
	archive, err := openArchive(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return readLayout(ctx, archive, tag, o)
}

// refName is the annotation that holds a tag in a layout's index.
const refName = "org.opencontainers.image.ref.name"

func readLayout(ctx context.Context, f files, tag string, o Options) (_ *Image, err error) {
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	b, err := readSmall(f, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		instead := ""
		if _, err := readSmall(f, "manifest.json"); err == nil {
			instead = ", but the form of docker save (an archive of that is docker-archive:FILE) or of skopeo's dir:"
		}
		return nil, fmt.Errorf("%w: there is no index.json: not an OCI layout%s", ErrInvalid, instead)
	}
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: index.json: %w", ErrInvalid, notJSON(b, err))
	}
	d, err := byTag(index, tag, o.Platform)
	if err != nil {
		return nil, err
	}
	p := layoutPlace{f}
	raw, err := p.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	img, err := readImage(ctx, p, raw, describe(raw, string(d.MediaType)), o)
	if err != nil {
		return nil, err
	}
	img.close = f.Close
	return img, nil
}

// layoutPlace is a layout as readImage wants it.
type layoutPlace struct{ files }

func (p layoutPlace) manifest(_ context.Context, d v1.Descriptor) ([]byte, error) {
	return readBlob(p.files, d)
}

func (p layoutPlace) config(_ context.Context, d v1.Descriptor) ([]byte, error) {
	return readBlob(p.files, d)
}

func (p layoutPlace) layer(d v1.Descriptor) Layer {
	return Layer{MediaType: string(d.MediaType), Digest: d.Digest, Size: d.Size, Open: func(context.Context) (io.ReadCloser, error) {
		r, err := p.open(blobName(d.Digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("blob %s: %w", d.Digest, ErrNotFound)
		}
		return r, err
	}}
}

// byTag finds a tag in a layout's index, and the platform where several
// manifests have it. Without a tag the index must have "latest" or one tag
// only; no tag at all is one.
func byTag(index *v1.IndexManifest, tag string, want v1.Platform) (v1.Descriptor, error) {
	byName := map[string][]v1.Descriptor{}
	for _, m := range index.Manifests {
		if isAttestation(m) {
			continue
		}
		name := m.Annotations[refName]
		byName[name] = append(byName[name], m)
	}
	tags := slices.Sorted(maps.Keys(byName))
	found := byName[tag]
	if tag == "" {
		if found = byName["latest"]; len(tags) == 1 {
			found = byName[tags[0]]
		}
	}
	switch {
	case len(tags) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: the layout holds no image", ErrInvalid)
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return pick(&v1.IndexManifest{Manifests: found}, want)
	case tag == "":
		return v1.Descriptor{}, fmt.Errorf("it has %d images; name one of the tags: %s", len(index.Manifests), strings.Join(tags, ", "))
	}
	return v1.Descriptor{}, fmt.Errorf("tag %q: %w; it has: %s", tag, ErrNotFound, strings.Join(tags, ", "))
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// readBlob reads a small blob and compares its digest and size.
func readBlob(f files, d v1.Descriptor) ([]byte, error) {
	h := d.Digest
	b, err := readSmall(f, blobName(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", h, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	got, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if got != h {
		return nil, fmt.Errorf("%w: blob %s has digest %s", ErrInvalid, h, got)
	}
	if int64(len(b)) != d.Size {
		return nil, fmt.Errorf("%w: blob %s has %d bytes, and its descriptor says %d", ErrInvalid, h, len(b), d.Size)
	}
	return b, nil
}

func readSmall(f files, name string) ([]byte, error) {
	r, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readBounded(r, name)
}
