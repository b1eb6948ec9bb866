package github_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/release/releasetest"
)

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
