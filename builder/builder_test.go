package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// fakeKernel is enough of a kernel for CheckKernel; these tests boot nothing.
func fakeKernel(arch string) (Kernel, error) {
	head := make([]byte, 64)
	if arch == "arm64" {
		copy(head[56:], "ARM\x64")
	} else {
		copy(head, "\x7fELF")
		head[18] = 62
	}
	return Kernel{Version: "test", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }}, nil
}

func options(t testing.TB, reference string) Options { return optionsIn(t.TempDir(), reference) }

func optionsIn(home, reference string) Options {
	return Options{
		Name: "test", Reference: reference, Architecture: "amd64",
		Store: image.NewStore(filepath.Join(home, "images")), Replace: true, CacheDir: filepath.Join(home, "cache"),
		Kernel: fakeKernel, Initramfs: func(string) ([]byte, error) { return []byte("070701"), nil },
	}
}

// create makes an image and returns the path of its root.
func create(t testing.TB, o Options) string {
	t.Helper()
	if _, err := Create(context.Background(), o); err != nil {
		t.Fatalf("Create(%q) = %v", o.Reference, err)
	}
	h, err := o.Store.Open(o.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	return h.Path(image.Rootfs)
}

func digest(t testing.TB, path string) string {
	t.Helper()
	f, err := image.Digest(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return f.SHA256
}

// A real Debian gives the same root, byte by byte, from wherever it comes.
func TestEverySourceGivesTheSameRoot(t *testing.T) {
	layout := "oci:" + buildertest.DebianFor(t, "amd64") + ":latest"
	registry := buildertest.Registry(t)
	ref := registry + "/debian:12"
	dir := t.TempDir()
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout, "docker://"+ref)
	buildertest.Run(t, "skopeo", "copy", "--quiet", layout, "oci-archive:"+dir+"/oci.tar:latest")
	buildertest.Run(t, "skopeo", "copy", "--quiet", layout, "docker-archive:"+dir+"/docker.tar:debian:12")
	buildertest.Run(t, "gzip", "--keep", "--fast", dir+"/docker.tar")

	o := options(t, layout)
	root := create(t, o)
	buildertest.Run(t, "fsck.erofs", root)
	want := digest(t, root)
	for _, reference := range []string{
		layout, // again: it is reproducible
		ref, "docker://" + ref,
		"oci-archive:" + dir + "/oci.tar:latest",
		"docker-archive:" + dir + "/docker.tar", "docker-archive:" + dir + "/docker.tar:debian:12",
		"docker-archive:" + dir + "/docker.tar.gz",
		"test", // the local image that the layout made
	} {
		t.Run(strings.ReplaceAll(reference, "/", "_"), func(t *testing.T) {
			o := o // with the same cache, as it is used
			o.Name, o.Reference = "other", reference
			if got := digest(t, create(t, o)); got != want {
				t.Errorf("root has digest %s, from the layout %s", got, want)
			}
		})
	}
}

// A kernel that a recipe gave a base is that of what is made of it, too, unless
// another one is asked for.
func TestKernelOfTheBase(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	given := func(k Kernel) func(string) (Kernel, error) {
		return func(arch string) (Kernel, error) {
			fake, err := fakeKernel(arch)
			k.Open = func() (io.ReadCloser, error) {
				r, err := fake.Open()
				return struct {
					io.Reader
					io.Closer
				}{io.MultiReader(r, strings.NewReader(k.Version)), r}, err
			}
			return k, err
		}
	}
	o.Name, o.Kernel = "base", given(Kernel{Version: "own", CommandLine: "quiet", Fragment: "CONFIG_BLK_DEV_NBD=y\n"})
	create(t, o)
	o.Name, o.Reference = "test", "base"
	for _, tt := range []struct {
		asked Kernel
		want  string
	}{{Kernel{Version: "built in", Default: true}, "own"}, {Kernel{Version: "a file"}, "a file"}, {Kernel{Version: "other", Fragment: "CONFIG_NET_9P=y\n"}, "other"}} {
		o.Kernel = given(tt.asked)
		create(t, o)
		h, err := o.Store.Open("test")
		if err != nil {
			t.Fatal(err)
		}
		kernel, err := os.ReadFile(h.Path(image.Kernel))
		h.Close()
		if err != nil || h.Kernel.Version != tt.want || !strings.HasSuffix(string(kernel), tt.want) || (h.Kernel.Fragment == "") != (tt.want == "a file") {
			t.Errorf("asked for %+v: %+v, %q, %v", tt.asked, h.Kernel, kernel, err)
		}
	}
}

func TestCorruptCacheIsFetchedAgain(t *testing.T) {
	layout := "oci:" + buildertest.DebianFor(t, "amd64") + ":latest"
	ref := buildertest.Registry(t) + "/debian:12"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout, "docker://"+ref)
	o := options(t, ref)
	want := digest(t, create(t, o))
	blobs, err := filepath.Glob(filepath.Join(o.CacheDir, "blobs/sha256/*"))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("cached blobs: %v, %v", blobs, err)
	}
	if err := os.Truncate(blobs[0], 1000); err != nil {
		t.Fatal(err)
	}
	if got := digest(t, create(t, o)); got != want {
		t.Errorf("root from a mended cache = %s, want %s", got, want)
	}
}

// layer is an uncompressed layer of entries.
func layer(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		delete(h.PAXRecords, "content")
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// file is an entry of a regular file.
func file(name, content string) tar.Header {
	return tar.Header{Name: name, Mode: 0o644, PAXRecords: map[string]string{"content": content}}
}

func dir(name string, mode int64) tar.Header {
	return tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode}
}

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
}

// with changes an entry.
func with(h tar.Header, change func(*tar.Header)) tar.Header {
	change(&h)
	return h
}

func xattr(h tar.Header, name, value string) tar.Header {
	if h.PAXRecords == nil {
		h.PAXRecords = map[string]string{}
	}
	h.PAXRecords["SCHILY.xattr."+name] = value
	return h
}

// writeLayout writes an OCI layout of gzipped layers.
func writeLayout(t testing.TB, arch string, layers ...[]byte) string {
	t.Helper()
	return writeLayoutAs(t, arch, "application/vnd.oci.image.layer.v1.tar+gzip", gzipped, layers...)
}

func gzipped(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b)
	w.Close()
	return z.Bytes()
}

// writeLayoutAs is writeLayout with layers of another type.
func writeLayoutAs(t testing.TB, arch string, mediaType types.MediaType, compress func([]byte) []byte, layers ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	blob := func(b []byte) v1.Descriptor {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		path := filepath.Join(dir, "blobs/sha256", sum)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{Size: int64(len(b)), Digest: v1.Hash{Algorithm: "sha256", Hex: sum}}
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	config := v1.ConfigFile{Architecture: arch, OS: "linux", RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	for _, l := range layers {
		d := blob(compress(l))
		d.MediaType = mediaType
		manifest.Layers = append(manifest.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(l))})
	}
	manifest.Config = blob(marshal(config))
	manifest.Config.MediaType = "application/vnd.oci.image.config.v1+json"
	d := blob(marshal(manifest))
	d.MediaType = manifest.MediaType
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": "latest"}
	index := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{d}}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "index.json"), marshal(index), 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIndexPicksThePlatform(t *testing.T) {
	amd64 := writeLayout(t, "amd64", layer(t, file("amd64", "x")))
	arm64 := writeLayout(t, "arm64", layer(t, file("arm64", "x")))
	ref := buildertest.Registry(t) + "/multi"
	for arch, dir := range map[string]string{"amd64": amd64, "arm64": arm64} {
		buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "oci:"+dir+":latest", "docker://"+ref+":"+arch)
	}
	list := "multi-" + filepath.Base(t.TempDir())
	buildertest.Run(t, "buildah", "manifest", "create", "--tls-verify=false", list, "docker://"+ref+":amd64", "docker://"+ref+":arm64")
	t.Cleanup(func() { buildertest.Run(t, "buildah", "manifest", "rm", list) })
	buildertest.Run(t, "buildah", "manifest", "push", "--all", "--tls-verify=false", list, "docker://"+ref+":all")
	// The same as a layout: an index in its index, and its index alone.
	nested, flat := t.TempDir(), t.TempDir()
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "docker://"+ref+":all", "oci:"+nested+":latest")
	buildertest.Run(t, "cp", "-a", nested+"/.", flat)
	buildertest.Run(t, "cp", flat+"/blobs/sha256/"+onlyDigest(t, flat), flat+"/index.json")
	buildertest.Run(t, "tar", "-C", flat, "-cf", flat+".tar", ".")
	for _, reference := range []string{ref + ":all", "oci:" + nested, "oci:" + nested + ":latest", "oci:" + flat, "oci-archive:" + flat + ".tar"} {
		t.Run(strings.ReplaceAll(reference, "/", "_"), func(t *testing.T) {
			for _, arch := range []string{"amd64", "arm64"} {
				o := options(t, reference)
				o.Architecture = arch
				out := buildertest.Run(t, "dump.erofs", "--path=/"+arch, create(t, o))
				if !strings.Contains(out, "/"+arch) {
					t.Errorf("the image for %s has no file %s:\n%s", arch, arch, out)
				}
			}
			o := options(t, reference)
			o.Architecture = "riscv64"
			_, err := Create(context.Background(), o)
			for _, want := range []string{"linux/riscv64", "linux/amd64", "linux/arm64"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Create() for another platform = %v, want an error with %s", err, want)
				}
			}
		})
	}
}

// onlyDigest is the digest of what a layout's index has one of.
func onlyDigest(t testing.TB, layout string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	index, err := v1.ParseIndexManifest(f)
	if err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index of %s: %v, %v", layout, index, err)
	}
	return index.Manifests[0].Digest.Hex
}

func BenchmarkCreateDebian(b *testing.B) {
	layout := "oci:" + buildertest.DebianFor(b, "amd64") + ":latest"
	for b.Loop() {
		if _, err := Create(context.Background(), options(b, layout)); err != nil {
			b.Fatal(err)
		}
	}
}
