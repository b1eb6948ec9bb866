package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What a registry, or what is in its place, answers is told in plain words: what it
// means, where, and neither Go's types nor what is meant for programs.
func TestRegistryWords(t *testing.T) {
	t.Parallel() // one of them is waiting
	const asText = "application/vnd.oci.image.manifest.v1+json"
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"an unknown tag", answer(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"v1"}}]}`), "not found in the registry: GET http://ADDRESS/v2/a/manifests/v1: MANIFEST_UNKNOWN: manifest unknown"},
		{"no access", answer(401, "application/json", `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository","Action":"pull"}]}]}`), "the registry refused access (log in with docker login or skopeo login): GET http://ADDRESS/v2/a/manifests/v1: UNAUTHORIZED: authentication required"},
		{"no access, and no more", answer(403, "", ""), "the registry refused access (log in with docker login or skopeo login): GET http://ADDRESS/v2/a/manifests/v1: status 403 Forbidden"},
		{"a fault", answer(500, "text/plain", "oops"), "the registry: GET http://ADDRESS/v2/a/manifests/v1: status 500 Internal Server Error"},
		{"a web page", answer(200, "text/html", "\n<html>log in</html>"), ": it is a web page, probably of a proxy or of the network's login"},
		{"nothing", answer(200, asText, ""), ": it is empty"},
		{"text", answer(200, asText, "hello"), ": it is not JSON"},
		{"half of it", answer(200, asText, `{"schemaVersion":2,`), ": its JSON is broken: unexpected EOF"},
		{"text for a number", answer(200, asText, `{"schemaVersion":"2"}`), `: "schemaVersion" cannot be of the kind string`},
		{"a page with an escape", answer(404, "application/json", `{"errors":[{"code":"X","message":"\u001b[2Jgone"}]}`), `X: \x1b[2Jgone`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(tt.answer)
			defer s.Close()
			address := strings.TrimPrefix(s.URL, "http://")
			_, err := Open(context.Background(), address+"/a:v1", Options{Platform: amd64, CacheDir: t.TempDir()})
			if want := strings.ReplaceAll(tt.want, "ADDRESS", address); err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "map[") {
				t.Errorf("Open() = %v, want %q at its end", err, want)
			}
		})
	}
	t.Run("an authority that is not known", func(t *testing.T) {
		s := httptest.NewUnstartedServer(answer(200, asText, ""))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		defer s.Close()
		_, err := Open(context.Background(), strings.TrimPrefix(s.URL, "https://")+"/a:v1", Options{Platform: amd64, CacheDir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "an authority that this host does not know; SSL_CERT_FILE names a file") {
			t.Errorf("Open() = %v", err)
		}
	})
}

// Of an archive with several images one is chosen by a tag, as people write it, or by its
// place.
func TestArchiveChoice(t *testing.T) {
	image := func(name string, tags string) (manifest string) {
		return fmt.Sprintf(`{"Config":"%[1]s.json","RepoTags":%[2]s,"Layers":["%[1]s.tar"]}`, name, tags)
	}
	config := func(layer string) string {
		return `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + sha(layer) + `"]}}`
	}
	archive := func(manifests ...string) []byte {
		return archiveOf(entry("manifest.json", "["+strings.Join(manifests, ",")+"]"), entry("one.json", config("first")), entry("one.tar", "first"), entry("two.json", config("second")), entry("two.tar", "second"))
	}
	two := archive(image("one", `["app:one","app:latest"]`), image("two", `["app:two","registry.example.test:5000/team/app:v2"]`))
	none := archive(image("one", "null"), image("two", "null"))
	same := archive(image("one", `["a:v1"]`), image("two", `["b:v1"]`))
	tests := []struct {
		name    string
		archive []byte
		tag     string
		want    string // the layer, or part of the error
	}{
		{"whole", two, ":app:two", "second"},
		{"without the tag's name", two, ":app", "first"},
		{"in full", two, ":docker.io/library/app:one", "first"},
		{"of a registry", two, ":registry.example.test:5000/team/app:v2", "second"},
		{"its end", two, ":two", "second"},
		{"latest", two, ":latest", "first"},
		{"the place", two, ":@1", "second"},
		{"the place of one without a tag", none, ":@0", "first"},
		{"the one image that there is", archive(image("two", "null")), "", "second"},
		{"the one image by its place", archive(image("two", "null")), ":@0", "second"},
		{"none given", two, "", "it has 2 images; write one of their tags behind the file's name and a colon: app:one, app:latest, app:two, registry.example.test:5000/team/app:v2; or @0 to @1 by their place"},
		{"none given, and none there", none, "", "it has 2 images; write one of their tags behind the file's name and a colon: @0 to @1 by their place"},
		{"one that is not there", two, ":three", `tag "three": not found; it has: app:one, app:latest`},
		{"an end of several", same, ":v1", `tag "v1": not found; it has: a:v1, b:v1; or @0 to @1`},
		{"no place", two, ":@2", `tag "@2": not found`},
		{"no number", two, ":@-1", `tag "@-1": not found`},
		{"one image of another tag", archive(image("one", `["a:v1"]`)), ":v2", `tag "v2": not found; it has: a:v1; or none is needed`},
		{"of Docker before 1.10", archiveOf(entry("repositories", "{}"), entry("abc/layer.tar", "first")), "", "but of Docker before 1.10: docker load and docker save of today"},
		{"of docker export", archiveOf(entry("etc/passwd", ""), entry("bin/sh", "")), "", "but a root file system, as of docker export: a Dockerfile of FROM scratch and ADD FILE /"},
		{"a configuration that is none", archiveOf(entry("manifest.json", "["+image("one", "null")+"]"), entry("one.json", `{"config":{"Cmd":"sh","Env":"A=1"}}`)), "", `configuration "one.json": "config.Env" cannot be of the kind string`},
		{"a list that is none", archiveOf(entry("manifest.json", `{"Config":1}`)), "", `manifest.json: it cannot be of the kind object`},
	}
	for _, tt := range tests {
		img, err := openTagged(t, "docker-archive", tt.archive, tt.tag)
		got := fmt.Sprint(err)
		if err == nil {
			r, err := img.Layers[0].Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			got = string(b)
			if r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// An unknown tag names those that may have been meant; a digest has none that are near.
func TestNearTags(t *testing.T) {
	t.Parallel()
	tags := `["12","bookworm","bookworm-slim","\u001b[2J","sid"]`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasSuffix(r.URL.Path, "/tags/list"):
			_, _ = io.WriteString(w, `{"name":"a","tags":`+tags+`}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	address := strings.TrimPrefix(s.URL, "http://")
	for ref, want := range map[string]string{
		"a:bokworm": "; it has: bookworm", "a:none": "; it has: 12, bookworm, bookworm-slim, sid",
		"a@sha256:" + strings.Repeat("0", 64): "404 Not Found",
	} {
		if _, err := Open(context.Background(), address+"/"+ref, Options{Platform: amd64, CacheDir: t.TempDir()}); !errors.Is(err, ErrNotFound) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want %q at its end", ref, err, want)
		}
	}
}

// A registry that says one digest and sends what has another is not believed.
func TestDigestThatIsSaid(t *testing.T) {
	t.Parallel()
	reference, _ := serve(t, nil)
	r, err := inRegistry(reference)
	if err != nil {
		t.Fatal(err)
	}
	target := &url.URL{Scheme: "http", Host: r.Context().RegistryStr()}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Header.Get("Docker-Content-Digest") != "" {
			resp.Header.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		}
		return nil
	}
	s := httptest.NewServer(proxy)
	defer s.Close()
	other := strings.Replace(reference, target.Host, strings.TrimPrefix(s.URL, "http://"), 1)
	if _, err := Open(context.Background(), other, Options{Platform: amd64, CacheDir: t.TempDir()}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the registry says that the manifest has digest sha256:000") {
		t.Errorf("Open() = %v", err)
	}
}

// Docker reads a command that is a string as a list of one.
func TestCommandsThatAreStrings(t *testing.T) {
	t.Parallel()
	img, err := newImage([]byte(`{"os":"linux","x":{"cmd":"y"},"config":{"Cmd":"a b","entrypoint":"/init","Shell":"","Env":["A=1"],"Own":1},"rootfs":{"type":"layers","diff_ids":[]}}`), "x")
	if err != nil {
		t.Fatal(err)
	}
	if c := img.Config.Config; !slices.Equal(c.Cmd, []string{"a b"}) || !slices.Equal(c.Entrypoint, []string{"/init"}) || c.Shell != nil || !slices.Equal(c.Env, []string{"A=1"}) {
		t.Errorf("configuration %+v", c)
	}
	for _, kept := range []string{`"x":{"cmd":"y"}`, `"Own":1`, `"Cmd":["a b"]`} {
		if !strings.Contains(string(img.RawConfig), kept) {
			t.Errorf("%s has no %s", img.RawConfig, kept)
		}
	}
	if _, err := newImage([]byte(`{"config":{"Cmd":"a","Env":"A=1"}}`), "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an environment that is a string: %v", err)
	}
}
