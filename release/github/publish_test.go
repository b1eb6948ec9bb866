package github_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/release/releasetest"
)

func isUpload(r githubtest.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Path, "/api/uploads")
}

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
