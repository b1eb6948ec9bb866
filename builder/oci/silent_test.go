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
				time.Sleep(time.Millisecond)
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
