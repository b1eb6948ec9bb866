package oci

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A registry that sends a client elsewhere has it bring nothing along: the user's
// password is for the registry that it was given for, whatever port or name of the
// same host the redirect names. A file of this host is not read.
func TestPasswordsStayWithTheirRegistry(t *testing.T) {
	var mu sync.Mutex
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), base64.StdEncoding.EncodeToString([]byte("me:hunter2"))) {
				leaked = append(leaked, name+" at "+r.Host)
			}
		}
		_, _ = io.WriteString(w, "elsewhere")
	}))
	defer elsewhere.Close()
	asked := 0
	to := ""
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if asked++; strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:hunter2")))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := inRegistry(host + "/test:latest")
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(t.Context(), ref.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, to = range []string{
		elsewhere.URL + "/x", strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1) + "/x", "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/x",
		"file:///etc/passwd",
	} {
		resp, err := c.get(t.Context(), "blobs/"+v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}.String(), "", 0)
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != "elsewhere" {
				t.Errorf("redirected to %s: %.80q", to, b)
			}
		} else if !strings.HasPrefix(to, "file:") {
			t.Errorf("redirected to %s: %v", to, err)
		}
	}
	if asked == 0 || len(leaked) > 0 {
		t.Errorf("%d requests with the password; it came to %q", asked, leaked)
	}
}

// A registry's redirect leads to no service of this host and no metadata of a cloud's.
// It is not connected to: the error says why.
func TestRedirectsStayOutside(t *testing.T) {
	for _, tt := range []struct {
		registry, to string
		refused      bool
	}{
		{"registry.example.test:5000", "127.0.0.1:1", true}, {"registry.example.test", "[::1]:1", true}, {"registry.example.test", "0.0.0.0:1", true},
		{"registry.example.test", "localhost:1", true}, {"10.0.0.9:5000", "127.0.0.1:1", true},
		{"registry.example.test", "169.254.169.254:80", true}, {"127.0.0.1:5000", "169.254.169.254:80", true}, {"localhost:5000", "[fe80::1%lo]:80", true},
		{"127.0.0.1:5000", "127.0.0.1:1", false}, {"localhost:5000", "127.0.0.1:1", false}, {"127.0.0.1:5000", "localhost:1", false},
	} {
		ref, err := inRegistry(tt.registry + "/test:latest")
		if err != nil {
			t.Fatal(err)
		}
		pool := newPool(ref.Context().Registry, answerTimeout)
		conn, err := pool.DialContext(t.Context(), "tcp", tt.to)
		if err == nil {
			conn.Close()
			t.Errorf("%s: %s answers", tt.registry, tt.to)
		} else if got := strings.Contains(err.Error(), "which is an address of this host or its link"); got != tt.refused {
			t.Errorf("a redirect of %s to %s: %v", tt.registry, tt.to, err)
		}
	}
}
