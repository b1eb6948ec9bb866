package github_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/release/releasetest"
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

func isUpload(r githubtest.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Path, "/api/uploads")
}

func isStorage(r githubtest.Request) bool { return r.Storage }

func TestPublish(t *testing.T) {
	s := githubtest.New(t)
	s.PageSize = 2 // lists have several pages
	c := client(t, s, nil)
	content := map[string]string{"a": "1", "b": "22", "c": "333", "d": "4444", "e": "55555"}
	list := files(t, content)
	all := []string{"a", "b", "c", "d", "e"}

	dry, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{DryRun: true})
	if err != nil || !slices.Equal(dry.Uploaded, all) || len(s.Assets("v1")) != 0 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	first, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := github.Published{URL: s.URL + "/me/images/releases/tag/v1", Uploaded: all, Replaced: []string{}, Kept: []string{}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for name, text := range content {
		if got := s.Asset("v1", name); string(got) != text {
			t.Errorf("%s: %q", name, got)
		}
	}
	if s.IsDraft("v1") {
		t.Error("it is still a draft")
	}
	// Once more: nothing is to be done, and nothing is.
	s.Requests()
	again, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{})
	if err != nil || !slices.Equal(again.Kept, all) {
		t.Errorf("again: %+v, %v", again, err)
	}
	for _, r := range s.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("again: %+v", r)
		}
	}
	// Another file of a name that is taken.
	content["b"] = "xx"
	list = files(t, content)
	_, err = c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{})
	if err == nil || !strings.Contains(err.Error(), "other files of the names b; use another tag, or --replace") {
		t.Errorf("%v", err)
	}
	if string(s.Asset("v1", "b")) != "22" {
		t.Error("it was replaced silently")
	}
	replaced, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{Replace: true})
	if err != nil || !slices.Equal(replaced.Replaced, []string{"b"}) || string(s.Asset("v1", "b")) != "xx" {
		t.Errorf("replacing: %+v, %v", replaced, err)
	}
}

// Servers that tell no digests are asked for the bytes.
func TestPublishWithoutDigests(t *testing.T) {
	s := githubtest.New(t)
	s.NoDigest = true
	c := client(t, s, nil)
	if _, err := c.Publish(t.Context(), repo, "v1", files(t, map[string]string{"a": "11"}), github.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := c.Publish(t.Context(), repo, "v1", files(t, map[string]string{"a": "11"}), github.PublishOptions{})
	if err != nil || !slices.Equal(again.Kept, []string{"a"}) {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := c.Publish(t.Context(), repo, "v1", files(t, map[string]string{"a": "12"}), github.PublishOptions{}); err == nil {
		t.Error("another file of the same size is taken for the same")
	}
}

// Whatever breaks once, the release is complete in the end, and holds each file once.
func TestPublishOverFaults(t *testing.T) {
	limited := func(status int, header http.Header, body string) githubtest.Fault {
		return githubtest.Fault{Status: status, Header: header, Body: body}
	}
	post := func(path string) func(githubtest.Request) bool {
		return func(r githubtest.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.Path, path) && !isUpload(r)
		}
	}
	any := func(githubtest.Request) bool { return true }
	often := func() func(githubtest.Request) bool {
		r := rand.New(rand.NewPCG(1, 1))
		return func(githubtest.Request) bool { return r.IntN(3) == 0 }
	}
	tests := []struct {
		name  string
		fault func(githubtest.Request) githubtest.Fault
	}{
		{"a third of the requests has a 502", once(1000, often(), limited(502, nil, "<html>"))},
		{"a 500 at first", once(3, any, limited(500, nil, ""))},
		{"uploads are cut", once(3, isUpload, githubtest.Fault{CutAfter: 10_000})},
		{"uploads' answers are lost", once(2, isUpload, githubtest.Fault{Lost: true})},
		{"creating's answer is lost", once(1, post("/releases"), githubtest.Fault{Lost: true})},
		{"publishing's answer is lost", once(1, func(r githubtest.Request) bool { return r.Method == http.MethodPatch }, githubtest.Fault{Lost: true})},
		{"an upload is refused for now", once(2, isUpload, limited(503, http.Header{"Retry-After": {"0"}}, ""))},
		{"the rate limit", once(2, any, limited(403, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1"}}, `{"message":"API rate limit exceeded"}`))},
		{"the secondary rate limit", once(2, isUpload, limited(429, http.Header{"Retry-After": {"0"}},
			`{"message":"You have exceeded a secondary rate limit","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`))},
		{"a 403 with Retry-After", once(2, isUpload, limited(403, http.Header{"Retry-After": {"0"}}, `{"message":"slow down"}`))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := githubtest.New(t)
			c := client(t, s, nil)
			content := map[string]string{"a": string(releasetest.Noise(400_000, 1)), "b": string(releasetest.Noise(50_000, 2)), "c": "3"}
			s.SetFault(tt.fault)
			if _, err := c.Publish(t.Context(), repo, "v1", files(t, content), github.PublishOptions{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"a", "b", "c"}, s.Assets("v1")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for name, text := range content {
				if string(s.Asset("v1", name)) != text {
					t.Errorf("%s differs", name)
				}
			}
			if s.IsDraft("v1") {
				t.Error("it is still a draft")
			}
		})
	}
}

// A call that was given up is finished by another one, which uploads only what
// is missing.
func TestPublishResumes(t *testing.T) {
	s := githubtest.New(t)
	c := client(t, s, nil)
	list := files(t, map[string]string{"a": "1", "b": string(releasetest.Noise(300_000, 1)), "c": "3"})
	s.SetFault(func(r githubtest.Request) githubtest.Fault {
		if isUpload(r) && len(s.Assets("v1")) >= 1 {
			return githubtest.Fault{CutAfter: 1000}
		}
		return githubtest.Fault{}
	})
	// Every attempt fails, and that is said.
	_, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{})
	if err == nil || !strings.Contains(err.Error(), "uploading b: failed 5 times") {
		t.Fatalf("%v", err)
	}
	if !s.IsDraft("v1") {
		t.Error("half a release is public")
	}
	s.SetFault(nil)
	done, err := c.Publish(t.Context(), repo, "v1", list, github.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(done.Kept, []string{"a"}) || !slices.Equal(done.Uploaded, []string{"b", "c"}) || s.IsDraft("v1") {
		t.Errorf("%+v", done)
	}
}

func TestPublishRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(o *github.Options)
		server func(s *githubtest.Server)
		want   string
	}{
		{"a wrong token", func(o *github.Options) { o.Token = "wrong" }, nil, "the token is refused; set GITHUB_TOKEN"},
		{"a token that may read only", nil, func(s *githubtest.Server) {
			s.SetFault(once(100, func(r githubtest.Request) bool { return r.Method == http.MethodPost },
				githubtest.Fault{Status: 403, Body: `{"message":"Resource not accessible by personal access token"}`}))
		}, "contents: write"},
		{"a file that GitHub does not take", nil, func(s *githubtest.Server) { s.MaxAsset = 3 }, "size must be less than"},
		{"a limit for an hour", nil, func(s *githubtest.Server) {
			reset := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
			s.SetFault(once(100, isUpload, githubtest.Fault{Status: 403, Header: http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {reset}}, Body: `{"message":"API rate limit exceeded"}`}))
		}, "the server allows no request before"},
		{"a server that is not there", func(o *github.Options) { o.BaseURL = "http://127.0.0.1:1" }, nil, "connection refused"},
		{"a server that has no such repository", anonymous, nil, "not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := githubtest.New(t)
			if tt.server != nil {
				tt.server(s)
			}
			_, err := client(t, s, tt.change).Publish(t.Context(), repo, "v1", files(t, map[string]string{"a": "1234"}), github.PublishOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// published is a server with a release of one file.
func published(t *testing.T, content string) *githubtest.Server {
	t.Helper()
	s := githubtest.New(t)
	if _, err := client(t, s, nil).Publish(t.Context(), repo, "v1", files(t, map[string]string{"a": content}), github.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Requests()
	return s
}

// fetch fetches the file of a release into one that holds some bytes already.
func fetch(t *testing.T, c *github.Client, have string, size int) (string, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(have); err != nil {
		t.Fatal(err)
	}
	r, err := c.Release(t.Context(), repo, "")
	if err != nil {
		return "", err
	}
	fetchErr := c.Fetch(t.Context(), r, "a", int64(size), f, func(int64) {})
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), fetchErr
}

func TestFetch(t *testing.T) {
	content := string(releasetest.Noise(3_000_000, 1))
	tests := []struct {
		name, have string
		fault      func(githubtest.Request) githubtest.Fault
		ranges     []string
	}{
		{"at once", "", nil, []string{""}},
		{"the rest", content[:1_000_000], nil, []string{"bytes=1000000-"}},
		{"nothing", content, nil, nil},
		{"more than there is", content + "x", nil, []string{""}},
		{"over cuts", "", once(2, isStorage, githubtest.Fault{CutAfter: 1_200_000}), []string{"", "bytes=1200000-", "bytes=2400000-"}},
		{"over many cuts that bring something", "", once(100, isStorage, githubtest.Fault{CutAfter: 400_000}), nil},
		{"over errors", content[:5], once(3, isStorage, githubtest.Fault{Status: 503}), []string{"bytes=5-", "bytes=5-", "bytes=5-", "bytes=5-"}},
		{"from a server without ranges", content[:5], once(1, isStorage, githubtest.Fault{NoRange: true}), []string{"bytes=5-"}},
		{"after a 416", content[:5], once(1, isStorage, githubtest.Fault{Status: 416}), []string{"bytes=5-", ""}},
		{"after being told to wait", "", once(1, isStorage, githubtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"0"}}}), []string{"", ""}},
	}
	for _, tt := range tests {
		for _, token := range []string{"", githubtest.Token} {
			t.Run(fmt.Sprintf("%s, token %q", tt.name, token), func(t *testing.T) {
				s := published(t, content)
				fault := tt.fault
				if token != "" && fault != nil {
					t.Skip("the faults are used up")
				}
				s.SetFault(fault)
				got, err := fetch(t, client(t, s, func(o *github.Options) { o.Token = token }), tt.have, len(content))
				if err != nil {
					t.Fatal(err)
				}
				if got != content {
					t.Error("the content differs")
				}
				var ranges []string
				for _, r := range s.Requests() {
					if r.Storage {
						ranges = append(ranges, r.Range)
						if r.Authorized {
							t.Error("the token goes to the storage")
						}
					}
				}
				if diff := cmp.Diff(tt.ranges, ranges); diff != "" && tt.name != "over many cuts that bring something" {
					t.Errorf("ranges (-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestFetchRefused(t *testing.T) {
	content := string(releasetest.Noise(100_000, 1))
	tests := []struct {
		name   string
		change func(o *github.Options)
		fault  githubtest.Fault
		want   string
	}{
		{"a server that always cuts", nil, githubtest.Fault{CutAfter: 1}, "failed 5 times: the connection broke"},
		{"a server that sends more", nil, githubtest.Fault{Change: func(b []byte) []byte { return append(b, 0) }}, "sends more than the 100000 bytes that are wanted"},
		{"a server that sends less", nil, githubtest.Fault{Change: func(b []byte) []byte { return b[:50_000] }}, "failed 5 times"},
		{"a server that hangs", func(o *github.Options) { o.Idle = 10 * time.Millisecond }, githubtest.Fault{Hang: true}, "nothing came for 10ms"},
		{"a file that is gone", nil, githubtest.Fault{Status: 404}, "not found"},
		{"redirects without end", nil, githubtest.Fault{Status: 302, Header: http.Header{"Location": {"/again"}}}, "redirects without end"},
		{"a redirect to a file", nil, githubtest.Fault{Status: 302, Header: http.Header{"Location": {"file:///etc/passwd"}}}, "not https"},
		{"a busy server", nil, githubtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, "the server allows no request before"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := published(t, content)
			s.SetFault(once(1000, isStorage, tt.fault))
			_, err := fetch(t, client(t, s, func(o *github.Options) {
				anonymous(o)
				if tt.change != nil {
					tt.change(o)
				}
			}), "", len(content))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestFetchIsInterrupted(t *testing.T) {
	s := published(t, "content")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	s.SetFault(func(r githubtest.Request) githubtest.Fault {
		if r.Storage {
			cancel(cause)
			return githubtest.Fault{Hang: true}
		}
		return githubtest.Fault{}
	})
	c := client(t, s, anonymous)
	r, err := c.Release(ctx, repo, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(ctx, r, "a", 100); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestPrivateRepository(t *testing.T) {
	s := published(t, "content")
	s.Private = true
	c := client(t, s, anonymous)
	if _, err := c.Release(t.Context(), repo, ""); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("without a token: %v", err)
	}
	if r, err := c.Release(t.Context(), repo, "v1"); err != nil {
		t.Error(err)
	} else if _, err := c.Read(t.Context(), r, "a", 100); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("without a token: %v", err)
	}
	if got, err := fetch(t, client(t, s, nil), "", len("content")); err != nil || got != "content" {
		t.Errorf("with a token: %q, %v", got, err)
	}
}

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

func TestRead(t *testing.T) {
	s := published(t, "content")
	c := client(t, s, anonymous)
	r, err := c.Release(t.Context(), repo, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.Read(t.Context(), r, "a", 7); err != nil || !bytes.Equal(b, []byte("content")) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := c.Read(t.Context(), r, "a", 6); !errors.Is(err, github.ErrRefused) {
		t.Errorf("too long: %v", err)
	}
	if _, err := c.Read(t.Context(), r, "b", 6); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}

// Without a token the API's few requests are left alone.
func TestAnonymousNeedsNoAPI(t *testing.T) {
	s := githubtest.New(t)
	c := client(t, s, anonymous)
	if _, err := c.Release(t.Context(), repo, ""); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("no release: %v", err)
	}
	s = published(t, "content")
	s.SetFault(func(r githubtest.Request) githubtest.Fault {
		if strings.HasPrefix(r.Path, "/api/") {
			return githubtest.Fault{Status: 403, Header: http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"99999999999"}}}
		}
		return githubtest.Fault{}
	})
	if got, err := fetch(t, client(t, s, anonymous), "", len("content")); err != nil || got != "content" {
		t.Errorf("%q, %v", got, err)
	}
}

// A small file whose size is not known comes over cuts too.
func TestReadOverFaults(t *testing.T) {
	content := string(releasetest.Noise(300_000, 1))
	for _, token := range []string{"", githubtest.Token} {
		s := published(t, content)
		c := client(t, s, func(o *github.Options) { o.Token = token })
		s.SetFault(once(2, isStorage, githubtest.Fault{CutAfter: 100_000}))
		r, err := c.Release(t.Context(), repo, "")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := c.Read(t.Context(), r, "a", 300_000); err != nil || string(b) != content {
			t.Errorf("token %q: %d bytes, %v", token, len(b), err)
		}
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
