package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/runtime/image"
)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func sample() *Catalog {
	img := func(arch string) Image {
		id := "default-" + arch
		return Image{
			ID: id, Name: "default", Architecture: arch, Version: "v1", Description: "Grüße <&>",
			Size: 10, DownloadSize: 7,
			Files: map[string]image.File{
				"image.json": {Size: 1, SHA256: digest("1")}, image.Kernel: {Size: 2, SHA256: digest("2")},
				image.Initramfs: {Size: 3, SHA256: digest("3")}, image.Rootfs: {Size: 4, SHA256: digest("4")},
			},
			Parts:      []Asset{{id + ".tar.zst.001", 4, digest("a")}, {id + ".tar.zst.002", 3, digest("b")}},
			SBOM:       Asset{id + ".spdx.json", 1, digest("c")},
			Provenance: Asset{id + ".provenance.json", 1, digest("d")},
		}
	}
	return &Catalog{Schema: Schema, Tag: "v1", Images: []Image{img("amd64"), img("arm64")}}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	empty := sha256.Sum256(nil)
	tests := []struct {
		name   string
		change func(c *Catalog, i *Image)
		want   string
	}{
		{"another schema", func(c *Catalog, _ *Image) { c.Schema = 2 }, "update lumina"},
		{"no image", func(c *Catalog, _ *Image) { c.Images = nil }, "0 images"},
		{"a tag that is a path", func(c *Catalog, _ *Image) { c.Tag = "../v1" }, `tag "../v1"`},
		{"a name that is a path", func(_ *Catalog, i *Image) { i.Name = "../default" }, "image name"},
		{"an id of another name", func(_ *Catalog, i *Image) { i.ID = "other-amd64" }, `its id is not "default-amd64"`},
		{"an architecture", func(_ *Catalog, i *Image) { i.Architecture = "mips" }, `architecture "mips"`},
		{"an image twice", func(c *Catalog, _ *Image) { c.Images = append(c.Images, c.Images[0]) }, "listed twice"},
		{"an asset twice", func(_ *Catalog, i *Image) { i.SBOM.Name = strings.ToUpper(i.Provenance.Name) }, "two assets"},
		{"an asset named as the catalog", func(_ *Catalog, i *Image) { i.SBOM.Name = "Catalog.json" }, "two assets"},
		{"a part that is a path", func(_ *Catalog, i *Image) { i.Parts[0].Name = "../../etc/passwd" }, "asset name"},
		{"a hidden part", func(_ *Catalog, i *Image) { i.Parts[0].Name = ".profile" }, "asset name"},
		{"a part without a digest", func(_ *Catalog, i *Image) { i.Parts[0].SHA256 = "" }, "not a SHA-256"},
		{"zeros for a digest", func(_ *Catalog, i *Image) { i.Parts[1].SHA256 = strings.Repeat("0", 64) }, "placeholder"},
		{"a pattern for a digest", func(_ *Catalog, i *Image) { i.Parts[1].SHA256 = strings.Repeat("deadbeef", 8) }, "placeholder"},
		{"the digest of nothing", func(_ *Catalog, i *Image) { i.SBOM.SHA256 = hex.EncodeToString(empty[:]) }, "placeholder"},
		{"a digest in capitals", func(_ *Catalog, i *Image) { i.SBOM.SHA256 = strings.ToUpper(i.SBOM.SHA256) }, "not a SHA-256"},
		{"words for a digest", func(_ *Catalog, i *Image) { i.SBOM.SHA256 = "TODO" }, "not a SHA-256"},
		{"a file's placeholder", func(_ *Catalog, i *Image) {
			i.Files[image.Kernel] = image.File{Size: 2, SHA256: strings.Repeat("a", 64)}
		}, "placeholder"},
		{"a missing file", func(_ *Catalog, i *Image) { delete(i.Files, image.Kernel) }, "3 files"},
		{"a further file", func(_ *Catalog, i *Image) { i.Files["x"] = image.File{Size: 1, SHA256: digest("x")} }, "5 files"},
		{"another file", func(_ *Catalog, i *Image) {
			i.Files["x"] = i.Files[image.Kernel]
			delete(i.Files, image.Kernel)
		}, "entry of kernel"},
		{"a size that is not the sum", func(_ *Catalog, i *Image) { i.Size++ }, "its files have"},
		{"a download size that is not", func(_ *Catalog, i *Image) { i.DownloadSize++ }, "its parts have"},
		{"a negative size", func(_ *Catalog, i *Image) { i.Parts[0].Size = -4 }, "size -4"},
		{"a part of 2 GiB", func(_ *Catalog, i *Image) { i.Parts[0].Size = 2 << 30 }, "want 1 to"},
		{"no part", func(_ *Catalog, i *Image) { i.Parts = nil }, "0 parts"},
		{"control characters", func(_ *Catalog, i *Image) { i.Description = "\x1b[2J" }, "control characters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := sample()
			tt.change(c, &c.Images[0])
			// As a peer that does not check would write it.
			b := marshal(t, c)
			_, err := Parse(b)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, err := c.Marshal(); !errors.Is(err, ErrInvalid) {
				t.Errorf("it would be published: %v", err)
			}
		})
	}
	if _, err := Parse(bytes.Repeat([]byte(" "), MaxSize+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
}

func TestFind(t *testing.T) {
	c := sample()
	tests := []struct{ id, arch, want, err string }{
		{"default", "amd64", "default-amd64", ""},
		{"default", "arm64", "default-arm64", ""},
		{"default-arm64", "amd64", "default-arm64", ""},
		{"nothing", "amd64", "", `has no image "nothing"; see: lumina images catalog`},
	}
	for _, tt := range tests {
		got, err := c.Find(tt.id, tt.arch)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.id, err, tt.err)
			}
			continue
		}
		if err != nil || got.ID != tt.want {
			t.Errorf("%s for %s: %v, %v", tt.id, tt.arch, got, err)
		}
	}
	c.Images = c.Images[:1]
	if _, err := c.Find("default", "arm64"); err == nil || !strings.Contains(err.Error(), "for amd64, not for arm64") {
		t.Errorf("an architecture that is not there: %v", err)
	}
}

// What Parse takes keeps the bounds that its readers rely on.
func FuzzParse(f *testing.F) {
	b, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		for i := range c.Images {
			for _, a := range c.Images[i].Assets() {
				if strings.ContainsAny(a.Name, "/\\\x00") || strings.HasPrefix(a.Name, ".") || a.Size <= 0 || len(a.SHA256) != 64 {
					t.Fatalf("asset %+v", a)
				}
			}
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatalf("it was read and cannot be written: %v", err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatal(err)
		}
	})
}

func marshal(t *testing.T, c *Catalog) []byte {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
