package oci

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// What a network and a busy registry do to a download does not end it: it goes on
// where it was, and what comes is what it should be.
func TestFetchGoesOn(t *testing.T) {
	cut := func(w http.ResponseWriter, blob []byte, from, n int) {
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(blob[from:min(from+n, len(blob))])
		if from+n < len(blob) {
			panic(http.ErrAbortHandler)
		}
	}
	start := func(r *http.Request) (from int) {
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		return from
	}
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, try int, blob []byte)
		tries  int // of a layer
	}{
		{"cut off, and ranges", func(w http.ResponseWriter, r *http.Request, _ int, blob []byte) {
			cut(w, blob, start(r), len(blob)/2+1)
		}, 2},
		{"cut off several times", func(w http.ResponseWriter, r *http.Request, _ int, blob []byte) {
			cut(w, blob, start(r), len(blob)/4+1)
		}, 4},
		{"cut off, and no ranges", func(w http.ResponseWriter, _ *http.Request, try int, blob []byte) { cut(w, blob, 0, len(blob)/2*try+1) }, 2},
		{"busy, then well", func(w http.ResponseWriter, _ *http.Request, try int, blob []byte) {
			switch try {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
			case 3:
				w.WriteHeader(http.StatusInternalServerError)
			default:
				_, _ = w.Write(blob)
			}
		}, 4},
		{"busy in the middle", func(w http.ResponseWriter, r *http.Request, try int, blob []byte) {
			if try == 2 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			cut(w, blob, start(r), len(blob)/2+1)
		}, 3},
		{"no answer at first", func(w http.ResponseWriter, _ *http.Request, try int, blob []byte) {
			if try == 1 {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(blob)
		}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			tries := map[string]int{}
			reference, _ := serve(t, func(w http.ResponseWriter, r *http.Request, blob []byte) {
				mu.Lock()
				tries[r.URL.Path]++
				try := tries[r.URL.Path]
				mu.Unlock()
				tt.answer(w, r, try, blob)
			})
			img, err := Open(context.Background(), reference, Options{Platform: amd64, CacheDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			for _, l := range img.Layers {
				r, err := l.Open(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); n != l.Size || err != nil {
					t.Errorf("the layer has %d bytes, %v, want %d", n, err, l.Size)
				}
				r.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			for path, n := range tries {
				if n != tt.tries {
					t.Errorf("%s was asked for %d times, want %d", path, n, tt.tries)
				}
			}
		})
	}
}

// A manifest that is not an image's says what it is.
func TestRefusesWhatIsNoImage(t *testing.T) {
	tests := []struct{ name, manifest, want string }{
		{"schema 1", `{"schemaVersion":1,"name":"library/x","fsLayers":[],"history":[]}`, "schema 1"},
		{"artifact", `{"schemaVersion":2,"artifactType":"application/vnd.example","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:` + sha("{}") + `","size":2},"layers":[]}`, `type "application/vnd.example"`},
		{"chart", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:` + sha("{}") + `","size":2},"layers":[]}`, "helm"},
		{"image of Lumina's", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.lumina.image.v1+json","digest":"sha256:` + sha("{}") + `","size":2},"layers":[]}`, "lumina images pull"},
		{"long configuration", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + sha("{}") + `","size":99999999999},"layers":[]}`, "not found"},
		{"index of attestations", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + sha("{}") + `","size":2,"platform":{"os":"unknown","architecture":"unknown"}}]}`, "no container image"},
	}
	for _, tt := range tests {
		archive := archiveOf(entry("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"sha256:%s","size":%d}]}`, sha(tt.manifest), len(tt.manifest))),
			entry("blobs/sha256/"+sha(tt.manifest), tt.manifest))
		_, err := openBytes(t, "oci-archive", archive)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open() = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
