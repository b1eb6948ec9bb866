package oci

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/builder/uncompress"
	"github.com/abdul-abdi/lumina/runtime/durable"
)

// maxArchiveEntries bounds the index of an archive.
const maxArchiveEntries = 64 << 10

// maxArchiveNames bounds their names and what links lead to, in bytes: those of an image
// have a hundred each.
const maxArchiveNames = 16 << 20

// archive is a tar file whose parts are read where they are.
type archive struct {
	f     *os.File
	parts map[string]part
}

type part struct {
	offset, size int64
	link         string // of a symbolic or hard link: another part's name
}

// openArchive indexes a tar file. A compressed one is uncompressed first, into
// a file without a name.
func openArchive(ctx context.Context, file string, o Options) (*archive, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("archive %q: %w", file, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%w: archive %q is not a file", ErrInvalid, file), err)
	}
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, fmt.Errorf("reading archive %q: %w", file, err)
	}
	if uncompress.Is(head[:n]) {
		plain, err := uncompressed(ctx, f, o)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("uncompressing archive %q: %w", file, err)
		}
		f = plain
	}
	a := &archive{f: f, parts: map[string]part{}}
	if err := a.index(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: archive %q: %w", ErrInvalid, file, err)
	}
	return a, nil
}

// uncompressed is what f holds, in a file without a name.
func uncompressed(ctx context.Context, f *os.File, o Options) (*os.File, error) {
	if err := durable.MkdirAll(o.CacheDir, 0o700); err != nil {
		return nil, err
	}
	z, err := uncompress.Reader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	plain, err := os.CreateTemp(o.CacheDir, "archive-*")
	if err != nil {
		return nil, err
	}
	// Without a name it ends with this process, however that ends.
	err = os.Remove(plain.Name())
	defer context.AfterFunc(ctx, func() { f.Close() })()
	if err == nil {
		_, err = io.Copy(Limit(plain, o.MaxSize), z)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		plain.Close()
		return nil, err
	}
	return plain, nil
}

func (a *archive) index() error {
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := tar.NewReader(a.f)
	names := 0
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(a.parts) == maxArchiveEntries {
			return fmt.Errorf("more than %d entries", maxArchiveEntries)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxArchiveNames {
			return fmt.Errorf("names of more than %d bytes", maxArchiveNames)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader has read the header and stands at the data: it reads
			// no further than it needs from a file that can seek.
			offset, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.parts[name] = part{offset: offset, size: h.Size}
		case tar.TypeSymlink:
			a.parts[name] = part{link: path.Join("/"+path.Dir(name), h.Linkname)[1:]}
		case tar.TypeLink:
			a.parts[name] = part{link: path.Clean("/" + h.Linkname)[1:]}
		}
	}
}

func (a *archive) open(name string) (io.ReadCloser, error) {
	p, ok := a.parts[name]
	for hops := 0; ok && p.link != "" && hops < 8; hops++ {
		p, ok = a.parts[p.link]
	}
	if !ok || p.link != "" {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(a.f, p.offset, p.size)), nil
}

func (a *archive) Close() error { return a.f.Close() }

// dockerManifest is an entry of manifest.json, as docker save writes it.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func openDockerArchive(ctx context.Context, s string, o Options) (_ *Image, err error) {
	file, tag := reference.SplitTag(s)
	a, err := openArchive(ctx, file, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	b, err := readSmall(a, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no manifest.json: not an archive of docker save%s", ErrInvalid, notSaved(a))
	}
	if err != nil {
		return nil, err
	}
	var manifests []dockerManifest
	if err := json.Unmarshal(b, &manifests); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrInvalid, notJSON(b, err))
	}
	m, err := byRepoTag(manifests, tag)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: it has %d layers", ErrInvalid, len(m.Layers))
	}
	if b, err = readSmall(a, path.Clean("/" + m.Config)[1:]); err != nil {
		return nil, fmt.Errorf("%w: configuration %q: %w", ErrInvalid, m.Config, err)
	}
	img, err := newImage(b, m.Config)
	if err != nil {
		return nil, err
	}
	img.close = a.Close
	for _, l := range m.Layers {
		layer := path.Clean("/" + l)[1:]
		img.Layers = append(img.Layers, Layer{Size: a.parts[layer].size, Open: func(context.Context) (io.ReadCloser, error) {
			r, err := a.open(layer)
			if err != nil {
				return nil, fmt.Errorf("layer %q: %w", layer, ErrNotFound)
			}
			return r, nil
		}})
	}
	return img, nil
}

// byRepoTag finds the image of a tag: a whole one, the part behind the colon where that
// is of one image only, or @N, the place in the archive, as skopeo has it: an image may
// be without a tag.
func byRepoTag(manifests []dockerManifest, tag string) (dockerManifest, error) {
	if len(manifests) == 0 {
		return dockerManifest{}, fmt.Errorf("%w: the archive holds no image", ErrInvalid)
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(tag, "@")); err == nil && tag[0] == '@' && n >= 0 && n < len(manifests) {
		return manifests[n], nil
	}
	var tags []string
	var ending []dockerManifest // have the tag behind their colon
	for _, m := range manifests {
		if tag == "" && len(manifests) == 1 || slices.ContainsFunc(m.RepoTags, func(t string) bool { return sameTag(t, tag) }) {
			return m, nil
		}
		if slices.ContainsFunc(m.RepoTags, func(t string) bool { return strings.HasSuffix(t, ":"+tag) }) {
			ending = append(ending, m)
		}
		tags = append(tags, m.RepoTags...)
	}
	if len(ending) == 1 && tag != "" {
		return ending[0], nil
	}
	const most = 20
	if len(tags) > most {
		tags = append(tags[:most], "…")
	}
	known := fmt.Sprintf("@0 to @%d by their place", len(manifests)-1)
	if len(manifests) == 1 {
		known = "none is needed for its one image"
	}
	if len(tags) > 0 {
		known = strings.Join(tags, ", ") + "; or " + known
	}
	if tag == "" {
		return dockerManifest{}, fmt.Errorf("it has %d images; write one of their tags behind the file's name and a colon: %s", len(manifests), known)
	}
	return dockerManifest{}, fmt.Errorf("tag %q: %w; it has: %s", tag, ErrNotFound, known)
}

// notSaved says what an archive without a manifest.json is, if it is known.
func notSaved(a *archive) string {
	for name, what := range map[string]string{
		"index.json":   ", but one of an OCI layout: write oci-archive: before its name",
		"repositories": ", but of Docker before 1.10: docker load and docker save of today make one that can be read",
	} {
		if _, ok := a.parts[name]; ok {
			return what
		}
	}
	for _, name := range []string{"etc/passwd", "bin/sh", "usr/bin/env", "etc/os-release"} {
		if _, ok := a.parts[name]; ok {
			return ", but a root file system, as of docker export: a Dockerfile of FROM scratch and ADD FILE / makes an image of it"
		}
	}
	return ""
}

// sameTag compares tags as people write them: debian:12 is that of Docker Hub.
func sameTag(a, b string) bool {
	x, xErr := name.NewTag(a)
	y, yErr := name.NewTag(b)
	return xErr == nil && yErr == nil && x.Name() == y.Name()
}
