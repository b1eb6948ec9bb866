package builder

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bytes"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func pullOptions(t testing.TB, ref string) PullOptions {
	return PullOptions{Name: "test", Reference: ref, Architecture: "amd64", Store: image.NewStore(filepath.Join(t.TempDir(), "images")), CacheDir: filepath.Join(t.TempDir(), "cache"),
		Progress: func(Progress) {}}
}

// An image that was sent as it is comes back so, to the last byte.
func TestArtifact(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", strings.Repeat("content ", 1<<14)))))
	create(t, o)
	ref := buildertest.Registry(t) + "/team/test:v1"
	push := PushOptions{Name: "test", Reference: ref, Store: o.Store, CacheDir: o.CacheDir}
	first, err := PushArtifact(t.Context(), push)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := PushArtifact(t.Context(), push); again != first || err != nil {
		t.Errorf("sent again it is %s, %v; was %s", again, err, first)
	}
	p := pullOptions(t, ref)
	if _, err := PullArtifact(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	read := func(s *image.Store, name string) string {
		h, err := s.Open("test")
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		b, err := os.ReadFile(h.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, name := range []string{"image.json", image.Kernel, image.Initramfs, image.Rootfs} {
		if read(p.Store, name) != read(o.Store, name) {
			t.Errorf("%s is another", name)
		}
	}
	p = pullOptions(t, ref)
	p.Architecture = "arm64"
	if _, err := PullArtifact(t.Context(), p); err == nil || !strings.Contains(err.Error(), "it is for amd64") {
		t.Errorf("for another architecture: %v", err)
	}
	// A container image is none.
	plain := buildertest.Registry(t) + "/plain:1"
	if _, err := Push(t.Context(), PushOptions{Name: "test", Reference: plain, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
		t.Fatal(err)
	}
	if _, err := PullArtifact(t.Context(), pullOptions(t, plain)); !errors.Is(err, ErrNotArtifact) {
		t.Errorf("a container image: %v", err)
	}
}

// What a registry says of an image is not believed.
func TestHostileArtifacts(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	create(t, o)
	h, err := o.Store.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	config, err := os.ReadFile(h.Path("image.json"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	blob := func(name string, content []byte) oci.Blob {
		b := z.EncodeAll(content, nil)
		hash, size, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		return oci.Blob{Name: name, MediaType: artifactFileType, Digest: hash, Size: size, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}}
	}
	good := func() []oci.Blob {
		var blobs []oci.Blob
		for _, name := range imageFiles {
			b, err := os.ReadFile(h.Path(name))
			if err != nil {
				t.Fatal(err)
			}
			blobs = append(blobs, blob(name, b))
		}
		return blobs
	}
	registry := buildertest.Registry(t)
	for _, tt := range []struct {
		name, want string
		spoil      func(a *oci.Artifact)
	}{
		{"another content", "not what image.json says", func(a *oci.Artifact) { a.Blobs[1] = blob(image.Initramfs, []byte("other")) }},
		{"without end", "not what image.json says", func(a *oci.Artifact) { a.Blobs[2] = blob(image.Rootfs, make([]byte, 64<<20)) }},
		{"more than there is room for", "larger than the limit", func(a *oci.Artifact) {
			var img image.Image
			if err := json.Unmarshal(a.Config, &img); err != nil {
				t.Fatal(err)
			}
			img.Files[image.Rootfs] = image.File{Size: 1 << 62, SHA256: img.Files[image.Rootfs].SHA256}
			a.Config, _ = json.Marshal(img)
		}},
		{"another name", `"../../x" in place of`, func(a *oci.Artifact) { a.Blobs[0].Name = "../../x" }},
		{"a file more", `"more" in place of`, func(a *oci.Artifact) { a.Blobs = append(a.Blobs, blob("more", nil)) }},
		{"no files", "0 files", func(a *oci.Artifact) { a.Blobs = nil }},
		{"no description", "not a valid image", func(a *oci.Artifact) { a.Config = []byte("{}") }},
		{"no compression", "magic number mismatch", func(a *oci.Artifact) {
			hash, size, _ := v1.SHA256(strings.NewReader("plain"))
			a.Blobs[0] = oci.Blob{Name: image.Kernel, MediaType: artifactFileType, Digest: hash, Size: size,
				Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("plain")), nil }}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := oci.Artifact{ConfigType: artifactType, Config: config, Blobs: good()}
			tt.spoil(&a)
			ref := registry + "/hostile:" + strings.ReplaceAll(tt.name, " ", "-")
			if _, err := oci.PushArtifact(context.Background(), ref, a, nil); err != nil {
				t.Fatal(err)
			}
			p := pullOptions(t, ref)
			if _, err := PullArtifact(t.Context(), p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("PullArtifact() = %v, want an error with %q", err, tt.want)
			}
			if names, err := p.Store.List(); len(names) != 0 || err != nil || p.Store.Stale() != 0 {
				t.Errorf("left: %v, %d, %v", names, p.Store.Stale(), err)
			}
		})
	}
}

// Whoever makes a prebuilt image can name layers that are none of its own. If the cache
// here has them, because they are of a private image, nothing that is made of the
// prebuilt image has them.
func TestPrebuiltLayers(t *testing.T) {
	here := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("key", "PRIVATE"))))
	here.Name, here.Configure = "private", func(*image.Image) {} // its layers are kept for what is made of it
	create(t, here)
	here.Configure = nil
	private, err := here.Store.Open("private")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()

	there := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("tool", "PUBLIC"))))
	create(t, there)
	public, err := there.Store.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	defer public.Close()
	hostile := *public.Image
	hostile.Layers, hostile.Container = private.Layers, private.Container
	text, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public.Path("image.json"), text, image.FileMode); err != nil {
		t.Fatal(err)
	}
	ref := buildertest.Registry(t) + "/hostile/tools:1"
	if _, err := PushArtifact(t.Context(), PushOptions{Name: "test", Reference: ref, Store: there.Store, CacheDir: there.CacheDir}); err != nil {
		t.Fatal(err)
	}
	if _, err := PullArtifact(t.Context(), PullOptions{Name: "tools", Reference: ref, Architecture: "amd64", Store: here.Store, CacheDir: here.CacheDir,
		Progress: func(Progress) {}}); err != nil {
		t.Fatal(err)
	}

	from := func(name, base string, change func(o *Options)) string {
		o := here
		o.Name, o.Reference = name, base
		change(&o)
		create(t, o)
		return name
	}
	copied := from("copied", "tools", func(*Options) {})
	for what, name := range map[string]string{
		"the image":            "tools",
		"its copy":             copied,
		"a copy of the copy":   from("again", copied, func(*Options) {}),
		"an image of it":       from("changed", "tools", func(o *Options) { o.Configure = func(img *image.Image) { img.Config.User = "1" } }),
		"an image of its copy": from("changed-copy", copied, func(o *Options) { o.Configure = func(img *image.Image) { img.Config.User = "1" } }),
	} {
		h, err := here.Store.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		img := *h.Image
		layers, err := localImage{h, here.CacheDir, 1 << 20}.layers(t.Context(), &img)
		if err != nil {
			t.Fatal(err)
		}
		sent := ""
		for _, l := range layers {
			r, err := OpenLayer(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			sent += string(b)
		}
		if strings.Contains(sent, "PRIVATE") || !strings.Contains(sent, "PUBLIC") {
			t.Errorf("%s: its layers have private: %t, its own: %t", what, strings.Contains(sent, "PRIVATE"), strings.Contains(sent, "PUBLIC"))
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}
