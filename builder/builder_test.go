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

func options(t testing.TB, reference string) Options {
	home := t.TempDir()
	return Options{
		Name: "test", Reference: reference, Architecture: "amd64",
		Store: image.NewStore(filepath.Join(home, "images")), CacheDir: filepath.Join(home, "cache"),
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

	want := digest(t, create(t, options(t, layout)))
	for _, reference := range []string{
		layout, // twice: it is reproducible
		ref, "docker://" + ref,
		"oci-archive:" + dir + "/oci.tar", "oci-archive:" + dir + "/oci.tar:latest",
		"docker-archive:" + dir + "/docker.tar", "docker-archive:" + dir + "/docker.tar:debian:12",
		"docker-archive:" + dir + "/docker.tar.gz",
	} {
		t.Run(strings.ReplaceAll(reference, "/", "_"), func(t *testing.T) {
			o := options(t, reference)
			root := create(t, o)
			if got := digest(t, root); got != want {
				t.Errorf("root has digest %s, from the layout %s", got, want)
			}
			buildertest.Run(t, "fsck.erofs", root)
			// From the store, under another name: the same root again.
			o.Name, o.Reference = "copy", "test"
			if got := digest(t, create(t, o)); got != want {
				t.Errorf("copy of a local image has digest %s, want %s", got, want)
			}
		})
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

// writeLayout writes an OCI layout of gzipped layers.
func writeLayout(t testing.TB, arch string, layers ...[]byte) string {
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
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(l)
		w.Close()
		d := blob(z.Bytes())
		d.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
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

// largestBlob is the layer of a layout of one layer.
func largestBlob(t testing.TB, layout string) string {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	largest, size := "", int64(-1)
	for _, b := range blobs {
		if info, err := os.Stat(b); err == nil && info.Size() > size {
			largest, size = b, info.Size()
		}
	}
	return largest
}

// files lists a tree, to see that nothing came of a failure.
func files(dir string) string {
	var list []string
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	return strings.Join(list, "\n")
}

func TestCreateRefuses(t *testing.T) {
	random := strings.Repeat("incompressible? ", 1<<14)
	good := layer(t, file("a", random))
	tests := []struct {
		name    string
		prepare func(t *testing.T, o *Options)
		want    string // part of the message
	}{
		{"layout that is not there", func(t *testing.T, o *Options) { o.Reference = "oci:" + t.TempDir() + "/none" }, "not found"},
		{"directory that is no layout", func(t *testing.T, o *Options) { o.Reference = "oci:" + t.TempDir() }, "not an OCI layout"},
		{"tag that is not there", func(t *testing.T, o *Options) { o.Reference += ":nope" }, `tag "nope"`},
		{"archive that is not there", func(t *testing.T, o *Options) { o.Reference = "docker-archive:/nonexistent.tar" }, "not found"},
		{"archive that is none", func(t *testing.T, o *Options) {
			path := filepath.Join(t.TempDir(), "x.tar")
			if err := os.WriteFile(path, []byte(random), 0o644); err != nil {
				t.Fatal(err)
			}
			o.Reference = "oci-archive:" + path
		}, "archive"},
		{"registry that is down", func(t *testing.T, o *Options) { o.Reference = "127.0.0.1:1/debian:12" }, "connection refused"},
		{"image that the registry does not have", func(t *testing.T, o *Options) { o.Reference = buildertest.Registry(t) + "/debian:12" }, "not found"},
		{"reference that is none", func(t *testing.T, o *Options) { o.Reference = "UPPER CASE" }, "not a reference"},
		{"wrong architecture", func(t *testing.T, o *Options) { o.Architecture = "arm64" }, "--platform linux/amd64"},
		{"flipped byte in a layer", func(t *testing.T, o *Options) {
			blob := largestBlob(t, strings.TrimPrefix(o.Reference, "oci:"))
			b, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 0x40
			if err := os.WriteFile(blob, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "not what its digest says"},
		{"layer that is cut off", func(t *testing.T, o *Options) {
			if err := os.Truncate(largestBlob(t, strings.TrimPrefix(o.Reference, "oci:")), 300); err != nil {
				t.Fatal(err)
			}
		}, "cut off"},
		{"name that leads out", entries(layer(t, file("../x", ""))), "leads out of the image"},
		{"name that leads out later", entries(layer(t, file("a/../../x", ""))), "leads out of the image"},
		{"absolute name that leads out", entries(layer(t, file("/../x", ""))), "leads out of the image"},
		{"hard link that leads out", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"})), "leads out of the image"},
		{"hard link to nothing", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "etc/passwd"})), "hard link"},
		{"file below a file", entries(layer(t, file("a", ""), file("a/b", ""))), "not a directory"},
		{"file below a device", entries(layer(t, tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}, file("sda/x", ""))), "not a directory"},
		{"file below a loop of links", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "l"}, file("l/x", ""))), "too many symbolic links"},
		{"device number out of range", entries(layer(t, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1 << 20})), "device number"},
		{"tar that is none", entries([]byte(strings.Repeat("no tar ", 1000))), "invalid layer"},
		{"kernel of no bytes", func(t *testing.T, o *Options) {
			o.Kernel = func(string) (Kernel, error) {
				return Kernel{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }}, nil
			}
		}, "empty"},
		{"kernel of another architecture", func(t *testing.T, o *Options) {
			o.Kernel = func(string) (Kernel, error) { return fakeKernel("arm64") }
		}, "another architecture"},
		{"image that does not boot", func(t *testing.T, o *Options) {
			o.Verify = func(context.Context, string) error { return errors.New("kernel panic") }
		}, "does not boot: kernel panic"},
		{"name that is none", func(t *testing.T, o *Options) { o.Name = "../x" }, "image name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			o := options(t, "oci:"+writeLayout(t, "amd64", good))
			o.Store = image.NewStore(filepath.Join(home, "images"))
			// What was there before stays as it was.
			old := o
			old.Name = "test"
			want := digest(t, create(t, old))
			before := files(home)
			tt.prepare(t, &o)
			_, err := Create(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create() = %v, want an error with %q", err, tt.want)
			}
			if after := files(home); after != before {
				t.Errorf("the store holds\n%s\nand held\n%s", after, before)
			}
			h, err := o.Store.Open("test")
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if got := digest(t, h.Path(image.Rootfs)); got != want {
				t.Error("the old image changed")
			}
		})
	}
}

// entries makes the reference one of a layout with this layer.
func entries(l []byte) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) { o.Reference = "oci:" + writeLayout(t, "amd64", l) }
}

func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	buildertest.Run(t, "mount", "-t", "tmpfs", "-o", "size=16m", "none", mount)
	t.Cleanup(func() { buildertest.Run(t, "umount", mount) })
	o := options(t, "oci:"+buildertest.DebianFor(t, "amd64")+":latest")
	o.Store = image.NewStore(filepath.Join(mount, "images"))
	_, err := Create(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Create() on a full disk = %v", err)
	}
	if left := files(filepath.Join(mount, "images")); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	debian := "oci:" + buildertest.DebianFor(t, "amd64") + ":latest"
	ref := buildertest.Registry(t) + "/debian:12"
	dir := t.TempDir()
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", debian, "docker://"+ref)
	buildertest.Run(t, "skopeo", "copy", "--quiet", debian, "docker-archive:"+dir+"/docker.tar:debian:12")
	buildertest.Run(t, "gzip", "--fast", dir+"/docker.tar")
	tests := []struct {
		name, reference, step string // in which to cancel; "": before
	}{
		{"before", debian, ""},
		{"unpacking a layout", debian, "unpack"},
		{"fetching", ref, "fetch"},
		{"unpacking what was fetched", ref, "unpack"},
		{"uncompressing an archive", "docker-archive:" + dir + "/docker.tar.gz", ""},
		{"unpacking an archive", "docker-archive:" + dir + "/docker.tar.gz", "unpack"},
		{"trying", debian, "verify"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, tt.reference)
			home := t.TempDir()
			o.Store, o.CacheDir = image.NewStore(filepath.Join(home, "images")), filepath.Join(home, "cache")
			o.Verify = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			ctx, cancel := context.WithCancelCause(context.Background())
			stopped := errors.New("stopped by the user")
			if tt.step == "" {
				cancel(stopped)
			}
			var last Progress // of the step, which one goroutine reports
			o.Progress = func(p Progress) {
				if p.Step == tt.step {
					if last = p; p.Done > 1<<20 || p.Step == "verify" {
						cancel(stopped)
					}
				}
			}
			if _, err := Create(ctx, o); !errors.Is(err, stopped) {
				t.Errorf("Create() = %v, want the cause of its end", err)
			}
			if last.Total > 0 && last.Done == last.Total {
				t.Errorf("all %d bytes were read all the same", last.Total)
			}
			left := files(filepath.Join(home, "images"))
			for _, path := range strings.Fields(files(filepath.Join(home, "cache"))) {
				// A blob that was fetched stays: it is whole.
				if path != "/blobs" && path != "/blobs/sha256" && (tt.step == "fetch" || len(filepath.Base(path)) != 64) {
					left += path
				}
			}
			if left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
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
