package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// counting is a registry that counts what is fetched from it, and sent to it.
type counting struct {
	address       string
	fetched, sent atomic.Int64 // bytes of blobs
	blob          atomic.Pointer[func()]
}

func newCounting(t *testing.T) *counting {
	c := &counting{}
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: buildertest.Registry(t)})
	behind.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodGet && strings.Contains(r.Request.URL.Path, "/blobs/") {
			c.fetched.Add(r.ContentLength)
			if f := c.blob.Load(); f != nil {
				(*f)()
			}
		}
		return nil
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch || r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, countWriter{&c.sent}), r.Body}
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	c.address = strings.TrimPrefix(s.URL, "http://")
	return c
}

type countWriter struct{ n *atomic.Int64 }

func (c countWriter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// noise is content that does not get smaller, the same for the same seed.
func noise(seed uint64, size int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// Of two versions of an image, of which the second has a file more before all that
// they have in common, a registry keeps that once; whoever has the first fetches only
// the rest of the second, and a pull that was interrupted goes on.
func TestChunks(t *testing.T) {
	registry := newCounting(t)
	version := func(name string, add ...tar.Header) Options {
		o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, append(add, file("a", noise(1, 6<<20)), file("b", noise(2, 6<<20)))...)))
		create(t, o)
		if _, err := PushArtifact(t.Context(), PushOptions{Name: "test", Reference: registry.address + "/app:" + name, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
			t.Fatal(err)
		}
		return o
	}
	first := version("1")
	whole := registry.sent.Swap(0)
	second := version("2", file("0", noise(3, 100_000)))
	if more := registry.sent.Load(); whole < 12<<20 || more > whole/2 {
		t.Errorf("%d bytes were sent for one version and %d for the next", whole, more)
	}
	same := func(p PullOptions, want Options) {
		t.Helper()
		var roots [2][]byte
		for i, s := range []*image.Store{p.Store, want.Store} {
			h, err := s.Open("test")
			if err != nil {
				t.Fatal(err)
			}
			if roots[i], err = os.ReadFile(h.Path(image.Rootfs)); err != nil {
				t.Error(err)
			}
			h.Close()
		}
		if !bytes.Equal(roots[0], roots[1]) {
			t.Error("what was pulled is not what was sent")
		}
		if left, _ := filepath.Glob(p.CacheDir + "/blobs/sha256/*"); len(left) > 0 {
			t.Errorf("left in the cache: %d blobs", len(left))
		}
	}
	// Interrupted after some chunks, twice.
	p := pullOptions(t, registry.address+"/app:1")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped by the user")
		blobs := atomic.Int64{}
		stop := func() {
			if blobs.Add(1) == 6 {
				cancel(stopped)
			}
		}
		registry.blob.Store(&stop)
		if _, err := PullArtifact(ctx, p); !errors.Is(err, stopped) {
			t.Fatalf("PullArtifact() = %v, want the cause of its end", err)
		}
		registry.blob.Store(nil)
	}
	kept := int64(0)
	names, err := filepath.Glob(p.CacheDir + "/blobs/sha256/*")
	if err != nil || len(names) == 0 || p.Store.Stale() > 0 {
		t.Errorf("nothing is kept of a pull that was interrupted, %v", err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			kept += info.Size()
		}
	}
	registry.fetched.Store(0)
	if _, err := PullArtifact(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if fetched := registry.fetched.Load(); fetched > whole-kept {
		t.Errorf("%d of %d bytes were fetched when %d were there", fetched, whole, kept)
	}
	same(p, first)
	// The next version.
	registry.fetched.Store(0)
	p.Reference, p.Replace = registry.address+"/app:2", true
	if _, err := PullArtifact(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if fetched := registry.fetched.Load(); fetched > whole/2 {
		t.Errorf("%d bytes were fetched for the next version, %d for the first", fetched, whole)
	}
	same(p, second)
}

// The same content is cut in the same way wherever it stands, and chunks have bounds.
func TestEachChunk(t *testing.T) {
	common := noise(4, 9<<20)
	cut := func(content string, size int64) map[string]int {
		chunks, total := map[string]int{}, 0
		if err := eachChunk(t.Context(), strings.NewReader(content), size, func(b []byte) error {
			chunks[sumOf(b)] = len(b)
			total += len(b)
			if len(b) > 4*chunkBlocks*chunkBlock {
				return fmt.Errorf("a chunk of %d bytes", len(b))
			}
			return nil
		}); err != nil || total != len(content) {
			t.Fatalf("%d of %d bytes, %v", total, len(content), err)
		}
		return chunks
	}
	one, other, again := cut(common, 9<<20), cut(noise(5, 3*chunkBlock)+common+"x", 9<<20), 0
	for sum, n := range one {
		if other[sum] > 0 {
			again += n
		}
	}
	if again < 5<<20 {
		t.Errorf("%d bytes of %d are cut alike when something stands before them", again, len(common))
	}
	cut("", 0)
	cut(strings.Repeat("\x00", 9<<20+1), 9<<20+1)
}

// What a manifest says of chunks is not believed.
func TestHostileChunks(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", noise(6, 3<<20)))))
	create(t, o)
	registry := buildertest.Registry(t)
	ref := registry + "/good:1"
	if _, err := PushArtifact(t.Context(), PushOptions{Name: "test", Reference: ref, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
		t.Fatal(err)
	}
	good, err := oci.PullArtifact(t.Context(), ref, artifactType, "")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	for n, tt := range []struct {
		want  string
		spoil func(blobs []oci.Blob)
	}{
		{"a chunk of", func(b []oci.Blob) { b[0].Annotations[chunkSizeAnnotation] = "-1" }},
		{"a chunk of", func(b []oci.Blob) { b[0].Annotations[chunkSizeAnnotation] = "99999999999999999999" }},
		{"a chunk of", func(b []oci.Blob) { b[0].Annotations[chunkSizeAnnotation] = fmt.Sprint(maxChunk + 1) }},
		{"a chunk of", func(b []oci.Blob) { b[1].Annotations[chunkSumAnnotation] = "../../x\x1b[31m" }},
		{"for a file of", func(b []oci.Blob) { b[0].Annotations[chunkSizeAnnotation] = "4096" }},
		{"does not hold what it should", func(b []oci.Blob) { b[0].Annotations, b[1].Annotations = b[1].Annotations, b[0].Annotations }},
		{"does not hold what it should", func(b []oci.Blob) {
			b[0].Annotations[chunkSumAnnotation] = strings.Repeat("0", 64)
		}},
		{"not what image.json says", func(b []oci.Blob) {
			b[0], b[1] = b[1], b[0] // each is what it says
		}},
	} {
		t.Run(fmt.Sprint(n, " ", tt.want), func(t *testing.T) {
			a := oci.Artifact{ConfigType: artifactType, Config: good.Config}
			for _, b := range good.Blobs {
				var annotations map[string]string
				raw, _ := json.Marshal(b.Annotations)
				_ = json.Unmarshal(raw, &annotations)
				delete(annotations, "org.opencontainers.image.title")
				b.Annotations = annotations
				a.Blobs = append(a.Blobs, b)
			}
			if len(a.Blobs) < 4 {
				t.Fatalf("there are %d blobs", len(a.Blobs))
			}
			tt.spoil(a.Blobs[2:])
			ref := fmt.Sprintf("%s/hostile:%d", registry, n)
			if _, err := oci.PushArtifact(t.Context(), ref, a, nil); err != nil {
				t.Fatal(err)
			}
			p := pullOptions(t, ref)
			_, err := PullArtifact(t.Context(), p)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("PullArtifact() = %v, want an error with %q", err, tt.want)
			}
			if names, err := p.Store.List(); len(names) != 0 || err != nil || p.Store.Stale() != 0 {
				t.Errorf("left: %v, %d, %v", names, p.Store.Stale(), err)
			}
		})
	}
}
