package github_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

var repo = github.Repo{Owner: "me", Name: "images"}

func client(t *testing.T, s *githubtest.Server, change func(o *github.Options)) *github.Client {
	t.Helper()
	o := github.Options{BaseURL: s.URL, Token: githubtest.Token, Backoff: time.Millisecond}
	if change != nil {
		change(&o)
	}
	c, err := github.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func anonymous(o *github.Options) { o.Token = "" }

func files(t *testing.T, content map[string]string) []github.File {
	t.Helper()
	dir := t.TempDir()
	var list []github.File
	for _, name := range slices.Sorted(mapsKeys(content)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content[name]), 0o644); err != nil {
			t.Fatal(err)
		}
		sum, err := image.Digest(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, github.File{Path: path, Name: name, Size: sum.Size, SHA256: sum.SHA256})
	}
	return list
}

func mapsKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// once returns a fault of the first requests that match.
func once(n int, match func(r githubtest.Request) bool, f githubtest.Fault) func(githubtest.Request) githubtest.Fault {
	return func(r githubtest.Request) githubtest.Fault {
		if n > 0 && match(r) {
			n--
			return f
		}
		return githubtest.Fault{}
	}
}

func isStorage(r githubtest.Request) bool { return r.Storage }

// What a server answers is read to an end.
func TestHostileAnswers(t *testing.T) {
	isList := func(r githubtest.Request) bool { return strings.HasSuffix(r.Path, "/assets") }
	isRelease := func(r githubtest.Request) bool { return strings.HasSuffix(r.Path, "/latest") }
	next := http.Header{"Content-Type": {"application/json"}}
	pages := 0
	tests := []struct {
		name  string
		fault func(r githubtest.Request) githubtest.Fault
		want  string
	}{
		{"a list without end", func(r githubtest.Request) githubtest.Fault {
			if !isList(r) {
				return githubtest.Fault{}
			}
			pages++
			header := next.Clone()
			header.Set("Link", fmt.Sprintf("<http://host/x?page=%d>; rel=\"next\"", pages+1))
			return githubtest.Fault{Status: 200, Header: header, Body: `[{"id":1,"name":"a","state":"uploaded","size":1}]`}
		}, "no end"},
		{"an answer that is too long", once(100, isRelease, githubtest.Fault{Status: 200, Header: next, Body: `{"tag_name":"` + strings.Repeat("x", 33<<20) + `"}`}), "too large"},
		{"no JSON", once(100, isRelease, githubtest.Fault{Status: 200, Header: next, Body: `<html>`}), "invalid character"},
		{"no release", once(100, isRelease, githubtest.Fault{Status: 200, Header: next, Body: `{}`}), "not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := published(t, "content")
			s.SetFault(tt.fault)
			_, err := client(t, s, nil).Release(t.Context(), repo, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
				t.Errorf("%.2000v, want %q", err, tt.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b?c", "a b/c"} {
		if _, err := github.ParseRepo(bad); err == nil {
			t.Errorf("ParseRepo takes %q", bad)
		}
	}
	for _, bad := range []string{"ftp://host", "host", "https://", "https://user@host", "https://host?x=1", "::"} {
		if _, err := github.New(github.Options{BaseURL: bad}); err == nil {
			t.Errorf("New takes %q", bad)
		}
	}
	if _, err := github.New(github.Options{BaseURL: "http://github.test", Token: "t"}); err == nil || !strings.Contains(err.Error(), "unencrypted") {
		t.Errorf("a token over http: %v", err)
	}
}
