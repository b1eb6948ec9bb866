// Package release makes releases of images and gets images from releases.
//
// A release is a set of files: for each image an archive, in parts, an SBOM and
// its provenance; the catalog, which names them with their digests; and the
// catalog's signature, which vouches for all of it. See the package catalog for
// the format.
package release

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/release/attest"
	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/pack"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Progress is how far a step is, in bytes.
type Progress func(step, item string, done, total int64)

// Source is an image to release.
type Source struct {
	Image string // in the store
	Name  string // what it is published as
}

// ParseSource reads IMAGE or IMAGE=NAME. With the latter, images of one name
// and several architectures can be published together.
func ParseSource(s string) (Source, error) {
	img, name, ok := strings.Cut(s, "=")
	if !ok {
		name = img
	}
	if err := errors.Join(image.CheckName(img), image.CheckName(name)); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return Source{}, fmt.Errorf("%q: want IMAGE or IMAGE=NAME: %s", s, first)
	}
	return Source{img, name}, nil
}

// BuildOptions is what a release is made of.
type BuildOptions struct {
	Store    *image.Store
	Images   []Source
	Files    []string // further files, such as programs
	Tag      string
	Dir      string // an empty directory, where the release's files go
	Key      *sign.PrivateKey
	PartSize int64 // see pack.Options
	// Issued is when the release is made, at the earliest; it is not before the
	// making of an image in it.
	Issued   time.Time
	Builder  attest.Builder
	Progress Progress
}

// Build makes the files of a release. The same images give the same bytes.
// Without a key nothing is signed, and a pull refuses the release.
func Build(ctx context.Context, o BuildOptions) ([]github.File, error) {
	if o.Progress == nil {
		o.Progress = func(string, string, int64, int64) {}
	}
	if err := catalog.CheckTag(o.Tag); err != nil {
		return nil, err
	}
	c := &catalog.Catalog{Schema: catalog.Schema, Tag: o.Tag}
	b := &build{BuildOptions: o, names: map[string]bool{}, ids: map[string]string{}}
	for _, name := range []string{catalog.Name, catalog.Signature, catalog.Sums, catalog.SumsSignature} {
		b.names[strings.ToLower(name)] = true
	}
	for _, s := range o.Images {
		entry, err := b.image(ctx, s)
		if err != nil {
			return nil, err
		}
		c.Images = append(c.Images, *entry)
	}
	c.Issued = b.Issued.UTC().Truncate(time.Second)
	sort.Slice(c.Images, func(i, j int) bool { return c.Images[i].ID < c.Images[j].ID })
	for _, path := range o.Files {
		if err := b.copy(ctx, path); err != nil {
			return nil, err
		}
	}
	text, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	if err := b.write(catalog.Name, text); err != nil {
		return nil, err
	}
	// The catalog comes last: who sees it finds what it names.
	last := b.files[len(b.files)-1]
	sums := sumsOf(b.files)
	b.files = b.files[:len(b.files)-1]
	if err := b.write(catalog.Sums, sums); err != nil {
		return nil, err
	}
	if o.Key != nil {
		if err := b.write(catalog.SumsSignature, o.Key.Sign(sums, comment(o.Tag, catalog.Sums))); err != nil {
			return nil, err
		}
		if err := b.write(catalog.Signature, o.Key.Sign(text, comment(o.Tag, catalog.Name))); err != nil {
			return nil, err
		}
	}
	return append(b.files, last), nil
}

// comment is what is signed with a file, so that it is of one release only.
func comment(tag, name string) string { return "lumina release " + tag + " " + name }

type build struct {
	BuildOptions
	files []github.File
	names map[string]bool   // in lower case
	ids   map[string]string // the image of each
}

func (b *build) image(ctx context.Context, s Source) (*catalog.Image, error) {
	h, err := b.Store.Open(s.Image)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	id := catalog.ID(s.Name, h.Architecture)
	if other, taken := b.ids[id]; taken {
		return nil, fmt.Errorf("images %q and %q would both be published as %s; give one another name: IMAGE=NAME", other, s.Image, id)
	}
	b.ids[id] = s.Image
	entry, err := pack.Pack(ctx, h, pack.Options{
		Dir: b.Dir, Name: s.Name, PartSize: b.PartSize,
		Progress: func(done, total int64) { b.Progress("pack", id, done, total) },
	})
	if err != nil {
		return nil, err
	}
	if h.Created.After(b.Issued) {
		b.Issued = h.Created
	}
	entry.Version, entry.Description = b.Tag, description(h.Image)
	for _, p := range entry.Parts {
		if err := b.add(github.File{Path: filepath.Join(b.Dir, p.Name), Name: p.Name, Size: p.Size, SHA256: p.SHA256}); err != nil {
			return nil, err
		}
	}
	sbom, err := attest.SBOM(ctx, h, &entry)
	if err != nil {
		return nil, err
	}
	provenance, err := attest.Provenance(h, &entry, b.Builder)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		suffix string
		text   []byte
		to     *catalog.Asset
	}{{".spdx.json", sbom, &entry.SBOM}, {".provenance.json", provenance, &entry.Provenance}} {
		if err := b.write(id+m.suffix, m.text); err != nil {
			return nil, err
		}
		f := b.files[len(b.files)-1]
		*m.to = catalog.Asset{Name: f.Name, Size: f.Size, SHA256: f.SHA256}
	}
	return &entry, nil
}

// description is what an image says of itself.
func description(img *image.Image) string {
	text := cmp.Or(img.Description, img.Config.Labels["org.opencontainers.image.description"])
	// A path of the publisher's machine says nothing to others.
	if ref := img.Source.Reference; text == "" && !strings.Contains(ref, "oci:") && !strings.Contains(ref, "-archive:") {
		text = "made from " + ref
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' {
			return ' '
		}
		return r
	}, text)
	const most = 200
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strings.TrimSpace(text)
}

// copy adds a file of the user's.
func (b *build) copy(ctx context.Context, path string) error {
	name := filepath.Base(path)
	if err := catalog.CheckAssetName(name); err != nil {
		return fmt.Errorf("file %q: %w", path, err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	sum, err := image.Digest(ctx, path)
	if err != nil {
		return fmt.Errorf("file to publish: %w", err)
	}
	if sum.Size < 1 || sum.Size > catalog.MaxPart {
		return fmt.Errorf("file %q has %d bytes: want 1 to %d", path, sum.Size, catalog.MaxPart)
	}
	return b.add(github.File{Path: path, Name: name, Size: sum.Size, SHA256: sum.SHA256})
}

func (b *build) write(name string, text []byte) error {
	path := filepath.Join(b.Dir, name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	sum := sha256.Sum256(text)
	f := github.File{Path: path, Name: name, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
	if b.names[strings.ToLower(name)] && !isOwn(name) {
		return fmt.Errorf("two files of the release would be named %s", name)
	}
	b.names[strings.ToLower(name)] = true
	b.files = append(b.files, f)
	return nil
}

func isOwn(name string) bool {
	return name == catalog.Name || name == catalog.Signature || name == catalog.Sums || name == catalog.SumsSignature
}

func (b *build) add(f github.File) error {
	if b.names[strings.ToLower(f.Name)] {
		return fmt.Errorf("two files of the release would be named %s", f.Name)
	}
	b.names[strings.ToLower(f.Name)] = true
	b.files = append(b.files, f)
	return nil
}

// sumsOf is SHA256SUMS, as sha256sum writes it.
func sumsOf(files []github.File) []byte {
	lines := make([]string, len(files))
	for i, f := range files {
		lines[i] = f.SHA256 + "  " + f.Name + "\n"
	}
	sort.Slice(lines, func(i, j int) bool { return lines[i][64:] < lines[j][64:] })
	return []byte(strings.Join(lines, ""))
}
