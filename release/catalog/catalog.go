// Package catalog is the list of a release's images, its asset catalog.json.
//
// The catalog is what is signed (catalog.json.minisig); it names every other
// file with its size and SHA-256, so that one signature vouches for all that is
// downloaded. Its form:
//
//	{
//	  "schema": 1,
//	  "tag": "v1.2.0",                    the release it belongs to
//	  "issued": "2026-01-02T03:04:05Z",   grows with every release of a publisher
//	  "images": [{
//	    "id": "default-amd64",            NAME-ARCHITECTURE, unique
//	    "name": "default",                what it is installed as
//	    "architecture": "amd64",          or "arm64"
//	    "version": "v1.2.0",
//	    "description": "…",
//	    "size": 190000000,                bytes on disk, the sum of "files"
//	    "download_size": 61000000,        bytes to fetch, the sum of "parts"
//	    "files": {                        what the archive holds, in this order:
//	      "image.json":     {"size": …, "sha256": "…"},
//	      "kernel":         {…},
//	      "initramfs.cpio": {…},
//	      "rootfs.erofs":   {…}
//	    },
//	    "parts": [                        the archive, a .tar.zst, cut into assets
//	      {"name": "default-amd64.tar.zst", "size": …, "sha256": "…"}
//	    ],
//	    "sbom": {…}, "provenance": {…}    assets: SPDX 2.3, in-toto statement
//	  }]
//	}
package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// Schema is the version of the format.
const Schema = 1

// Names of the assets that every release has.
const (
	Name          = "catalog.json"
	Signature     = "catalog.json.minisig"
	Sums          = "SHA256SUMS"
	SumsSignature = "SHA256SUMS.minisig"
)

// What a catalog may ask of who reads it.
const (
	MaxSize     = 4 << 20   // of catalog.json, in bytes
	MaxPart     = 2<<30 - 1 // of an asset: GitHub takes files of less than 2 GiB
	maxImages   = 1000
	maxParts    = 500      // of an image: a release has at most 1000 assets
	maxUnpacked = 1 << 40  // of a file of an image, in bytes
	maxMetadata = 16 << 20 // of the SBOM and of the provenance, in bytes
	maxText     = 1000     // of a description, in bytes
)

// Catalog is catalog.json.
type Catalog struct {
	Schema int       `json:"schema"`
	Tag    string    `json:"tag"`
	Issued time.Time `json:"issued,omitzero"`
	Images []Image   `json:"images"`
}

// Image is an image of one architecture.
type Image struct {
	ID           string                `json:"id"`
	Name         string                `json:"name"`
	Architecture string                `json:"architecture"` // Go's name
	Version      string                `json:"version"`
	Description  string                `json:"description,omitempty"`
	Size         int64                 `json:"size"`
	DownloadSize int64                 `json:"download_size"`
	Files        map[string]image.File `json:"files"`
	Parts        []Asset               `json:"parts"`
	SBOM         Asset                 `json:"sbom"`
	Provenance   Asset                 `json:"provenance"`
}

// Asset is a file of the release.
type Asset struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// ErrInvalid is wrapped by errors about catalogs that break the format.
var ErrInvalid = errors.New("not a valid catalog")

// Files are the names of an archive's files, in their order.
func Files() []string {
	return []string{"image.json", image.Kernel, image.Initramfs, image.Rootfs}
}

// ID is the id of an image.
func ID(name, arch string) string { return name + "-" + arch }

// Parse reads catalog.json and checks it.
func Parse(b []byte) (*Catalog, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrInvalid, MaxSize)
	}
	// The version first: a later format may not fit the types of this one.
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if version.Schema != Schema {
		return nil, fmt.Errorf("%w: it has schema %d, this lumina reads %d; update lumina", ErrInvalid, version.Schema, Schema)
	}
	c := new(Catalog)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// Marshal returns catalog.json: the same bytes for the same catalog.
func (c *Catalog) Marshal() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", Name, err)
	}
	if b.Len() > MaxSize {
		return nil, fmt.Errorf("%w: it is longer than %d bytes; publish fewer images", ErrInvalid, MaxSize)
	}
	return b.Bytes(), nil
}

// Find returns the image that s names: an id, or a name of the architecture.
func (c *Catalog) Find(s, arch string) (*Image, error) {
	var others []string
	for i := range c.Images {
		img := &c.Images[i]
		if img.ID == s || img.Name == s && img.Architecture == arch {
			return img, nil
		}
		if img.Name == s {
			others = append(others, img.Architecture)
		}
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("release %s has image %q for %s, not for %s; choose with --platform", c.Tag, s, strings.Join(others, " and "), arch)
	}
	return nil, fmt.Errorf("release %s has no image %q; see: lumina images catalog", c.Tag, s)
}

// CheckTag returns an error when a release cannot have this tag.
func CheckTag(tag string) error {
	ok := tag != "" && len(tag) <= 128
	for i, c := range []byte(tag) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alphanumeric || i > 0 && strings.IndexByte("._-+", c) >= 0)
	}
	if !ok || strings.Contains(tag, "..") {
		return fmt.Errorf("tag %q: want letters, digits, '.', '_', '+' and '-', such as v1.2.0", tag)
	}
	return nil
}

// CheckAssetName returns an error when GitHub would not keep this name as it
// is, or when it could name anything but a file in a directory.
func CheckAssetName(name string) error {
	ok := name != "" && len(name) <= 200
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alphanumeric || i > 0 && i < len(name)-1 && strings.IndexByte("._-", c) >= 0)
	}
	if !ok || strings.Contains(name, "..") {
		return fmt.Errorf("asset name %q: want letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func (c *Catalog) check() error {
	if c.Schema != Schema {
		return invalid("schema %d, want %d", c.Schema, Schema)
	}
	if err := CheckTag(c.Tag); err != nil {
		return invalid("%w", err)
	}
	if n := len(c.Images); n == 0 || n > maxImages {
		return invalid("it lists %d images, want 1 to %d", n, maxImages)
	}
	seen := map[string]bool{}
	for _, name := range []string{Name, Signature, Sums, SumsSignature} {
		seen[strings.ToLower(name)] = true
	}
	ids := map[string]bool{}
	for i := range c.Images {
		img := &c.Images[i]
		if err := img.check(); err != nil {
			return invalid("image %q: %w", img.ID, err)
		}
		if ids[img.ID] {
			return invalid("image %q is listed twice", img.ID)
		}
		ids[img.ID] = true
		for _, a := range img.Assets() {
			// File systems may ignore case.
			if key := strings.ToLower(a.Name); seen[key] {
				return invalid("image %q: two assets are named %q", img.ID, a.Name)
			} else {
				seen[key] = true
			}
		}
	}
	return nil
}

// Assets are all the files of an image's.
func (img *Image) Assets() []Asset {
	return append(slices.Clone(img.Parts), img.SBOM, img.Provenance)
}

func (img *Image) check() error {
	if err := image.CheckName(img.Name); err != nil {
		return err
	}
	if img.Architecture != "amd64" && img.Architecture != "arm64" {
		return fmt.Errorf("architecture %q", img.Architecture)
	}
	if img.ID != ID(img.Name, img.Architecture) {
		return fmt.Errorf("its id is not %q", ID(img.Name, img.Architecture))
	}
	if err := CheckTag(img.Version); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if !printable(img.Description) {
		return fmt.Errorf("its description is longer than %d bytes or has control characters", maxText)
	}
	names := Files()
	if len(img.Files) != len(names) {
		return fmt.Errorf("it lists %d files, want %d", len(img.Files), len(names))
	}
	var size int64
	for _, name := range names {
		f, ok := img.Files[name]
		if !ok || f.Size <= 0 || f.Size > maxUnpacked {
			return fmt.Errorf("its entry of %s is missing or has size %d", name, f.Size)
		}
		if err := checkDigest(f.SHA256); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		size += f.Size
	}
	if size != img.Size {
		return fmt.Errorf("size %d, its files have %d", img.Size, size)
	}
	if n := len(img.Parts); n == 0 || n > maxParts {
		return fmt.Errorf("%d parts, want 1 to %d", n, maxParts)
	}
	var download int64
	for _, p := range img.Parts {
		if err := p.check(MaxPart); err != nil {
			return err
		}
		download += p.Size
	}
	if download != img.DownloadSize {
		return fmt.Errorf("download size %d, its parts have %d", img.DownloadSize, download)
	}
	for _, a := range []Asset{img.SBOM, img.Provenance} {
		if err := a.check(maxMetadata); err != nil {
			return err
		}
	}
	return nil
}

func (a Asset) check(limit int64) error {
	if err := CheckAssetName(a.Name); err != nil {
		return err
	}
	if a.Size <= 0 || a.Size > limit {
		return fmt.Errorf("asset %s has size %d, want 1 to %d", a.Name, a.Size, limit)
	}
	if err := checkDigest(a.SHA256); err != nil {
		return fmt.Errorf("asset %s: %w", a.Name, err)
	}
	return nil
}

// checkDigest returns an error when s is no SHA-256, or one that somebody put
// there in place of a real one.
func checkDigest(s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || s != strings.ToLower(s) {
		return fmt.Errorf("%q is not a SHA-256 digest", s)
	}
	empty := sha256.Sum256(nil)
	distinct := map[byte]bool{}
	for _, x := range b {
		distinct[x] = true
	}
	// 32 random bytes with 8 values or fewer among them do not happen.
	if bytes.Equal(b, empty[:]) || len(distinct) <= 8 {
		return fmt.Errorf("digest %s is a placeholder", s)
	}
	return nil
}

func printable(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD'
	})
}
