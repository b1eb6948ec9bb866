package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// blobSize is about that of the layers that serve has, in bytes.
const blobSize = 256 << 10

// serve is a registry with an image of a few layers. answer, when it is not
// nil, answers for those in place of the registry.
func serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, blob []byte)) (reference string, img v1.Image) {
	t.Helper()
	img, err := random.Image(blobSize, 3)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = amd64.OS, amd64.Architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if blobs["/v2/test/blobs/"+digest.String()], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	real := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if blob := blobs[r.URL.Path]; blob != nil && r.Method == http.MethodGet && answer != nil {
			answer(w, r, blob)
			return
		}
		real.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	reference = strings.TrimPrefix(server.URL, "http://") + "/test:latest"
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return reference, img
}

// cached are the names of the files of a cache.
func cached(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(blobDir(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRegistryLayers(t *testing.T) {
	fetched := make(chan string, 100)
	reference, want := serve(t, func(w http.ResponseWriter, r *http.Request, blob []byte) {
		fetched <- r.URL.Path
		_, _ = w.Write(blob)
	})
	o := Options{Platform: amd64, CacheDir: t.TempDir()}
	layers, err := want.Layers()
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		t.Helper()
		img, err := Open(context.Background(), reference, o)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if len(img.Layers) != len(layers) {
			t.Fatalf("%d layers, want %d", len(img.Layers), len(layers))
		}
		for n, l := range img.Layers {
			digest, err := layers[n].Digest()
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			got, size, err := v1.SHA256(r)
			r.Close()
			if err != nil || got != digest || l.Digest != digest || size != l.Size {
				t.Errorf("layer %d is %s of %d bytes, %v, and says that it is %s of %d; want %s", n, got, size, err, l.Digest, l.Size, digest)
			}
		}
	}
	read()
	if n := len(fetched); n != len(layers) {
		t.Errorf("%d blobs were fetched, want %d", n, len(layers))
	}
	read()
	if n := len(fetched); n != len(layers) {
		t.Errorf("%d blobs were fetched the second time, want 0", n-len(layers))
	}
	// What is in the cache is not trusted.
	broken := filepath.Join(blobDir(o.CacheDir), cached(t, o.CacheDir)[0])
	if err := os.WriteFile(broken, make([]byte, blobSize), 0o600); err != nil {
		t.Fatal(err)
	}
	read()
	if n := len(fetched); n != len(layers)+1 {
		t.Errorf("%d blobs were fetched for a broken one, want 1", n-len(layers))
	}
	if n := len(cached(t, o.CacheDir)); n != len(layers) {
		t.Errorf("the cache has %q, want %d blobs", cached(t, o.CacheDir), len(layers))
	}
}

// Whatever a registry sends in place of a layer, nothing of it is kept.
func TestFetchRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, blob []byte)
		want   string
	}{
		{"flipped byte", func(w http.ResponseWriter, _ *http.Request, blob []byte) {
			b := append([]byte(nil), blob...)
			b[len(b)/2] ^= 1
			_, _ = w.Write(b)
		}, "sha256"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request, blob []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
			_, _ = w.Write(blob[:len(blob)/2])
			panic(http.ErrAbortHandler)
		}, "unexpected EOF"},
		{"shorter, and says so", func(w http.ResponseWriter, _ *http.Request, blob []byte) { _, _ = w.Write(blob[:len(blob)/2]) }, "cut off"},
		{"longer", func(w http.ResponseWriter, _ *http.Request, blob []byte) {
			_, _ = w.Write(append(blob[:len(blob):len(blob)], "more"...))
		}, "more than its"},
		{"another range", func(w http.ResponseWriter, r *http.Request, blob []byte) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-%d/%d", len(blob)-1, len(blob)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(blob[1:])
		}, "range"},
		{"busy for ever", func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) }, "503"},
		{"not found", func(w http.ResponseWriter, r *http.Request, _ []byte) { http.NotFound(w, r) }, "not found in the registry"},
		{"refused", func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusForbidden) }, "log in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // it is waiting, mostly
			reference, _ := serve(t, tt.answer)
			o := Options{Platform: amd64, CacheDir: t.TempDir()}
			img, err := Open(context.Background(), reference, o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = img.Layers[0].Open(context.Background())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Layer.Open() = %v, want an error with %q", err, tt.want)
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
			if left := cached(t, o.CacheDir); len(left) > 0 {
				t.Errorf("the cache has %q", left)
			}
		})
	}
}

// TestMain is also a process that fetches an image, and says when a layer has
// begun to come.
func TestMain(m *testing.M) {
	reference := os.Getenv("TEST_FETCH")
	if reference == "" {
		os.Exit(m.Run())
	}
	begun := make(chan struct{}, 1)
	img, err := Open(context.Background(), reference, Options{Platform: amd64, CacheDir: os.Getenv("TEST_CACHE"), Progress: func(string, int64, int64) {
		select {
		case begun <- struct{}{}:
			fmt.Println("fetching")
		default:
		}
	}})
	if err == nil {
		_, err = img.Layers[0].Open(context.Background())
	}
	fmt.Println("fetched", err)
	os.Exit(1)
}

// A process that is killed leaves what it fetched half; the next one removes it.
func TestKilledFetchIsRemoved(t *testing.T) {
	whole := make(chan struct{}) // closed: the registry sends all of a blob
	reference, _ := serve(t, func(w http.ResponseWriter, r *http.Request, blob []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		_, _ = w.Write(blob[:len(blob)/2])
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-whole:
			_, _ = w.Write(blob[len(blob)/2:])
		}
	})
	cacheDir := t.TempDir()
	if n, err := CleanCache(cacheDir); n != 0 || err != nil {
		t.Errorf("CleanCache() of nothing = %d, %v", n, err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_FETCH="+reference, "TEST_CACHE="+cacheDir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "fetching\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	half := cached(t, cacheDir)
	if n, err := CleanCache(cacheDir); n != 0 || err != nil || len(half) == 0 {
		t.Errorf("CleanCache() = %d, %v beside a process that fetches %q, want 0", n, err, half)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	close(whole)
	if len(cached(t, cacheDir)) == 0 {
		t.Error("the process that was killed left nothing: this tests nothing")
	}
	img, err := Open(context.Background(), reference, Options{Platform: amd64, CacheDir: cacheDir})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		r, err := l.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	img.Close()
	for _, name := range cached(t, cacheDir) {
		if strings.HasPrefix(name, tempPrefix) {
			t.Errorf("the cache still has %s", name)
		}
	}
	// By name, too.
	if err := os.WriteFile(filepath.Join(blobDir(cacheDir), tempPrefix+"1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := CleanCache(cacheDir); n != 1 || err != nil || len(cached(t, cacheDir)) != len(img.Layers) {
		t.Errorf("CleanCache() = %d, %v and the cache has %q, want 1 less", n, err, cached(t, cacheDir))
	}
}
