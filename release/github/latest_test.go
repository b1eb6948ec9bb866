package github_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/release/github"
)

// The tag of the latest release is what the server sends: one that could be none adds
// no line to an error and sends no terminal a command.
func TestLatestTagIsATag(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/latest") {
			w.Header().Set("Location", "/me/images/releases/tag/v1%1b%5b31mRED%0aerror: injected")
			w.WriteHeader(http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	c, err := github.New(github.Options{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := github.ParseRepo("me/images")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Release(t.Context(), repo, "")
	if !errors.Is(err, github.ErrRefused) || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("Release() = %q", err)
	}
}
