package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// Destination is where Save puts an image.
type Destination struct {
	Kind string // "oci", "oci-archive" or "docker-archive"
	Path string
	Tag  string // of a layout; of an archive of Docker's, NAME:TAG
}

// ParseDestination reads oci:DIR[:TAG], oci-archive:FILE[:TAG] or
// docker-archive:FILE[:NAME:TAG].
func ParseDestination(s string) (d Destination, err error) {
	kind, rest, ok := strings.Cut(s, ":")
	d.Kind = kind
	d.Path, d.Tag, _ = strings.Cut(rest, ":")
	if !ok || d.Path == "" || kind != "oci" && kind != "oci-archive" && kind != "docker-archive" {
		return d, fmt.Errorf("%q: want oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME:TAG]", s)
	}
	if kind == "docker-archive" && d.Tag != "" {
		tag, err := name.NewTag(d.Tag)
		if err != nil {
			return d, fmt.Errorf("%q: %w", s, err)
		}
		d.Tag = tag.String()
	}
	return d, nil
}

// Save writes an image as files, and returns the digest of its manifest. An
// archive takes the place of a file of that name when it is complete.
func Save(ctx context.Context, d Destination, config []byte, annotations map[string]string, layers []Layer) (digest string, err error) {
	m, err := containerManifest(ctx, config, annotations, layers)
	if err != nil {
		return "", err
	}
	hash, _, err := v1.SHA256(bytes.NewReader(m.raw))
	if err != nil {
		return "", err
	}
	if d.Kind == "oci" {
		if err := checkOwn(d.Path); err != nil {
			return "", fmt.Errorf("saving to %s: %w", d.Path, err)
		}
		w := &dirWriter{ctx, d.Path}
		if err := saveLayout(w, m, hash, d.Tag); err != nil {
			return "", fmt.Errorf("saving to %s: %w", d.Path, err)
		}
		return hash.String(), nil
	}
	dir, base := filepath.Dir(d.Path), filepath.Base(d.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("saving to %s: %w", d.Path, err)
	}
	f, err := os.CreateTemp(dir, "."+base+"-*")
	if err != nil {
		return "", fmt.Errorf("saving to %s: %w", d.Path, err)
	}
	defer os.Remove(f.Name()) // when it has not got its own name
	defer f.Close()
	w := &tarWriter{tar.NewWriter(f)}
	if d.Kind == "oci-archive" {
		err = saveLayout(w, m, hash, d.Tag)
	} else {
		err = saveDocker(w, m, layers, d.Tag)
	}
	if err = errors.Join(err, w.t.Close(), f.Chmod(0o644), f.Close()); err == nil {
		err = durable.Move(f.Name(), d.Path)
	}
	if cause := context.Cause(ctx); cause != nil {
		return "", cause
	}
	if err != nil {
		return "", fmt.Errorf("saving to %s: %w", d.Path, err)
	}
	return hash.String(), nil
}

// fileWriter is a directory or an archive of one.
type fileWriter interface {
	write(name string, size int64, r io.Reader) error
	// has says whether a blob is there.
	has(h v1.Hash) bool
	read(name string) ([]byte, error) // fs.ErrNotExist when there is none
}

// saveLayout writes an OCI layout with an image, beside what it has under other
// tags.
func saveLayout(w fileWriter, m *manifest, digest v1.Hash, tag string) error {
	index := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	b, err := w.read("index.json")
	if err == nil {
		if index, err = v1.ParseIndexManifest(bytes.NewReader(b)); err != nil {
			return fmt.Errorf("index.json: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entry := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: int64(len(m.raw))}
	if tag != "" {
		entry.Annotations = map[string]string{refName: tag}
	}
	kept := index.Manifests[:0]
	for _, d := range index.Manifests {
		if d.Annotations[refName] != tag {
			kept = append(kept, d)
		}
	}
	index.Manifests = append(kept, entry)
	if err := w.write("oci-layout", -1, strings.NewReader(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := saveBlobs(w, m, func(h v1.Hash) string { return blobName(h) }); err != nil {
		return err
	}
	for _, b := range [][]byte{m.config, m.raw} {
		h, _, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			return err
		}
		if err := w.write(blobName(h), int64(len(b)), bytes.NewReader(b)); err != nil {
			return err
		}
	}
	if b, err = json.Marshal(index); err != nil {
		return err
	}
	return w.write("index.json", int64(len(b)), bytes.NewReader(b))
}

// saveBlobs writes the layers, each once.
func saveBlobs(w fileWriter, m *manifest, nameOf func(v1.Hash) string) error {
	described, err := v1.ParseManifest(bytes.NewReader(m.raw))
	if err != nil {
		return err
	}
	done := map[v1.Hash]bool{}
	for _, l := range described.Layers {
		if done[l.Digest] || w.has(l.Digest) {
			continue
		}
		done[l.Digest] = true
		r, err := m.blobs[l.Digest].Open()
		if err != nil {
			return err
		}
		err = w.write(nameOf(l.Digest), l.Size, r)
		r.Close()
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return nil
}

// saveDocker writes what docker load reads.
func saveDocker(w fileWriter, m *manifest, layers []Layer, tag string) error {
	nameOf := func(h v1.Hash) string { return h.Hex + ".tar.gz" }
	if err := saveBlobs(w, m, nameOf); err != nil {
		return err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(m.config))
	if err != nil {
		return err
	}
	if err := w.write(digest.Hex+".json", int64(len(m.config)), bytes.NewReader(m.config)); err != nil {
		return err
	}
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: digest.Hex + ".json", RepoTags: []string{}, Layers: []string{}}
	if tag != "" {
		entry.RepoTags = append(entry.RepoTags, tag)
	}
	for _, l := range layers {
		entry.Layers = append(entry.Layers, nameOf(l.Digest))
	}
	b, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	return w.write("manifest.json", int64(len(b)), bytes.NewReader(b))
}

// tarWriter writes an archive, the same for the same image.
type tarWriter struct{ t *tar.Writer }

func (w *tarWriter) has(v1.Hash) bool { return false }

func (w *tarWriter) read(string) ([]byte, error) { return nil, fs.ErrNotExist }

func (w *tarWriter) write(name string, size int64, r io.Reader) error {
	if size < 0 {
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		size, r = int64(len(b)), bytes.NewReader(b)
	}
	if err := w.t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(w.t, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// dirWriter writes a directory.
type dirWriter struct {
	ctx context.Context
	dir string
}

// has is false of a blob that is not what its name says: it is written anew.
func (w *dirWriter) has(h v1.Hash) bool {
	has, err := hasBlob(w.ctx, w.dir, h)
	return has && err == nil
}

func (w *dirWriter) read(name string) ([]byte, error) {
	root, err := statefile.OpenRoot(w.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readSmall(dirFiles{root}, name)
}

func (w *dirWriter) write(name string, size int64, r io.Reader) error {
	full := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(full), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // when it has not got its own name
	n, err := io.Copy(f, r)
	if err == nil && size >= 0 && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return durable.Move(f.Name(), full)
}
