package builder

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// The user's credential helper is asked, as docker login sets it up.
func TestRegistryWithLogin(t *testing.T) {
	layout := "oci:" + writeLayout(t, "amd64", layer(t, file("a", "private")))
	want := digest(t, create(t, options(t, layout)))
	registry := buildertest.RegistryWithLogin(t)
	ref := registry + "/private:1"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", buildertest.Login, layout+":latest", "docker://"+ref)
	user, password, _ := strings.Cut(buildertest.Login, ":")

	bin, config := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", config)
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, config, password, want string }{
		{"nobody", `{}`, "", "log in with"},
		{"helper", `{"credHelpers":{"` + registry + `":"lumina-test"}}`, password, ""},
		{"helper with a wrong password", `{"credHelpers":{"` + registry + `":"lumina-test"}}`, "wrong", "log in with"},
		{"helper for another registry", `{"credHelpers":{"example.com":"lumina-test"}}`, password, "log in with"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(filepath.Join(config, "config.json"), tt.config)
			write(filepath.Join(bin, "docker-credential-lumina-test"),
				"#!/bin/sh\nread -r server\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$server\" "+user+" '"+tt.password+"'\n")
			o := options(t, ref)
			if tt.want == "" {
				if got := digest(t, create(t, o)); got != want {
					t.Errorf("root has digest %s, from the layout %s", got, want)
				}
				return
			}
			_, err := Create(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "Secret") {
				t.Errorf("Create() = %v, want an error with %q", err, tt.want)
			}
			if left := files(filepath.Dir(o.CacheDir)); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// How layers are compressed and what their type is called make no difference to
// what they hold.
func TestLayerTypes(t *testing.T) {
	buildertest.Needs(t, "gzip", "xz", "bzip2", "zstd")
	layers := [][]byte{layer(t, file("a", "lower"), file("b", strings.Repeat("b", 100000))), layer(t, file("a", "upper"))}
	zipped := func(b []byte) []byte {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return w.EncodeAll(b, nil)
	}
	inParts := func(compress func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return append(compress(b[:700]), compress(b[700:])...) }
	}
	plain := func(b []byte) []byte { return b }
	by := func(program string) func([]byte) []byte {
		return func(b []byte) []byte {
			cmd := exec.Command(program, "-c")
			cmd.Stdin = bytes.NewReader(b)
			z, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", program, err)
			}
			return z
		}
	}
	tests := []struct {
		name     string
		media    types.MediaType
		compress func([]byte) []byte
		want     string // part of the error; "" for none
	}{
		{"gzip", types.OCILayer, gzipped, ""},
		{"gzip in parts, as lazy pulling wants it", types.OCILayer, inParts(gzipped), ""},
		{"zstd", types.OCILayerZStd, zipped, ""},
		{"zstd in parts", types.OCILayerZStd, inParts(zipped), ""},
		{"plain", types.OCIUncompressedLayer, plain, ""},
		{"docker", types.DockerLayer, gzipped, ""},
		{"docker, plain", types.DockerUncompressedLayer, plain, ""},
		{"plain that is said to be gzip", types.OCILayer, plain, ""},
		{"foreign", types.DockerForeignLayer, gzipped, ""},
		{"restricted", types.OCIRestrictedLayer, gzipped, ""},
		{"zstd that begins with frames to skip", types.OCILayerZStd, func(b []byte) []byte {
			return append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip\x5f\x2a\x4d\x18\x00\x00\x00\x00"), zipped(b)...)
		}, ""},
		{"zstd that ends with a frame to skip", types.OCILayerZStd, func(b []byte) []byte { return append(zipped(b), "\x5e\x2a\x4d\x18\x02\x00\x00\x00toc"[:10]...) }, ""},
		{"zstd that is said to be gzip", types.OCILayer, zipped, ""},
		{"gzip that is said to be plain", types.OCIUncompressedLayer, gzipped, ""},
		{"xz", "application/vnd.oci.image.layer.v1.tar+xz", by("xz"), ""},
		{"bzip2", types.OCILayer, by("bzip2"), ""},
		{"xz that is none", "application/vnd.oci.image.layer.v1.tar+xz", func(b []byte) []byte { return append([]byte("\xfd7zXZ\x00"), b...) }, "xz"},
		{"lz4", types.OCILayer, func(b []byte) []byte { return append([]byte("\x04\x22\x4d\x18"), b...) }, "compressed with lz4"},
		{"encrypted", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", gzipped, "is encrypted"},
	}
	want := digest(t, create(t, options(t, "oci:"+writeLayout(t, "amd64", layers...))))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img, err := Create(context.Background(), options(t, "oci:"+writeLayoutAs(t, "amd64", tt.media, tt.compress, layers...)))
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Create() = %v, want an error with %q", err, tt.want)
				}
			case err != nil:
				t.Error(err)
			case img.Files[image.Rootfs].SHA256 != want:
				t.Errorf("root has digest %s, want %s", img.Files[image.Rootfs].SHA256, want)
			}
		})
	}
}

// What a registry has lost since it was pushed is not made an image of.
func TestCorruptRegistry(t *testing.T) {
	layout := writeLayout(t, "amd64", layer(t, file("a", strings.Repeat("incompressible? ", 1<<14))))
	registry, data := buildertest.RegistryData(t)
	ref := registry + "/corrupt:1"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "oci:"+layout+":latest", "docker://"+ref)
	sum := filepath.Base(largestBlob(t, layout))
	path := filepath.Join(data, "docker/registry/v2/blobs/sha256", sum[:2], sum, "data")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	o := options(t, ref)
	if _, err := Create(context.Background(), o); err == nil || !strings.Contains(err.Error(), sum) || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("Create() = %v, want an error about the digest of %s", err, sum)
	}
	if left := files(filepath.Dir(o.CacheDir)); left != "/cache\n/cache/blobs\n/cache/blobs/sha256\n/images" {
		t.Errorf("left behind: %s", left)
	}
}

// A disk with no room for what is fetched.
func TestFullCache(t *testing.T) {
	layout := "oci:" + buildertest.DebianFor(t, "amd64") + ":latest"
	ref := buildertest.Registry(t) + "/debian:12"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout, "docker://"+ref)
	mount := t.TempDir()
	buildertest.Run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "none", mount)
	t.Cleanup(func() { buildertest.Run(t, "umount", mount) })
	o := options(t, ref)
	o.CacheDir = mount
	if _, err := Create(context.Background(), o); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Create() with a full cache = %v", err)
	}
	if left := files(mount); left != "/blobs\n/blobs/sha256" {
		t.Errorf("left behind in the cache: %s", left)
	}
	names, err := o.Store.List()
	if err != nil || len(names) > 0 || o.Store.Stale() > 0 {
		t.Errorf("the store has %q and %d stale directories, %v", names, o.Store.Stale(), err)
	}
}

// What a container image has no place for, PID 1, is a label of it.
func TestPushedInit(t *testing.T) {
	ref := buildertest.Registry(t) + "/init:1"
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	for _, init := range []string{image.InitSystemd, ""} {
		o.Configure = func(img *image.Image) { img.Init = init }
		create(t, o)
		if _, err := Push(t.Context(), PushOptions{Name: o.Name, Reference: ref, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
			t.Fatal(err)
		}
		img, err := Create(t.Context(), options(t, ref))
		if err != nil || img.Init != init {
			t.Errorf("pushed with init %q, pulled: %+v, %v", init, img, err)
		}
		// The next is made of what came back, label and all.
		o.Reference = ref
	}
}
