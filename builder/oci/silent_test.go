package oci

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A registry that stops in the middle of a manifest, or drips one, is not waited for.
func TestManifestThatDoesNotEnd(t *testing.T) {
	for name, drip := range map[string]bool{"stops": false, "drips": true} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return
			}
			_, _ = io.WriteString(w, `{"schemaVersion":2`)
			for r.Context().Err() == nil {
				if drip {
					_, _ = io.WriteString(w, " ")
				}
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond) // the speed is what is tested
			}
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ref, err := inRegistry(strings.TrimPrefix(server.URL, "http://") + "/test:latest")
		if err != nil {
			t.Fatal(err)
		}
		c, err := dial(ctx, ref.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.patience = 100 * time.Millisecond
		if _, _, err = c.manifest(ctx, "latest"); err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "has not come") {
			t.Errorf("%s: %v", name, err)
		}
		c.close()
		cancel()
		server.Close()
	}
}

// Nor is one that drips a blob.
func TestBlobThatDrips(t *testing.T) {
	t.Parallel() // most of it is waiting
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for strings.Contains(r.URL.Path, "/blobs/") && r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond) // the speed is what is tested
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ref, err := inRegistry(strings.TrimPrefix(server.URL, "http://") + "/test:latest")
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(ctx, ref.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	blob := c.blob(ctx, v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, Size: 1 << 30})
	blob.(*blobReader).period = 50 * time.Millisecond
	defer blob.Close()
	if n, err := io.Copy(io.Discard, blob); err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is cut off") || n > 1000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
