package desktop

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// mirror serves a file, each time as its next answer says.
type mirror struct {
	*httptest.Server
	content []byte
	tag     string
	answers []int // how many bytes it sends before the connection breaks; all after these
	ranges  []string
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{content: bytes.Repeat([]byte("0123456789abcdef"), 1<<16), tag: `"one"`}
	m.Server = httptest.NewTLSServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.ranges = append(m.ranges, r.Header.Get("Range"))
	w.Header().Set("ETag", m.tag)
	if len(m.answers) > 0 {
		w = &cut{w, m.answers[0]}
		m.answers = m.answers[1:]
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.content))
}

// cut ends a connection after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (m *mirror) fetch(ctx context.Context, dir string) (string, error) {
	f := fetcher{client: m.Client(), progress: func(int64, int64) {}}
	return f.fetch(ctx, m.URL+"/UniversalMac_15.1_Restore.ipsw", dir)
}

func (m *mirror) mustFetch(t *testing.T, dir string) {
	t.Helper()
	name, err := m.fetch(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, m.content) {
		t.Errorf("it has %d bytes that are not the server's %d: %v", len(b), len(m.content), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || !strings.HasSuffix(name, "-UniversalMac_15.1_Restore.ipsw") {
		t.Errorf("there are %v, %v", entries, err)
	}
}

func TestFetch(t *testing.T) {
	t.Run("goes on after breaks", func(t *testing.T) {
		m := newMirror(t)
		m.answers = []int{100_000, 50_000}
		dir := t.TempDir()
		m.mustFetch(t, dir)
		if len(m.ranges) != 3 || m.ranges[0] != "" || !strings.HasPrefix(m.ranges[1], "bytes=") || m.ranges[2] == m.ranges[1] {
			t.Errorf("asked for were %q", m.ranges)
		}
		m.mustFetch(t, dir)
		if len(m.ranges) != 3 {
			t.Error("what is there is fetched again")
		}
	})
	interrupted := func(t *testing.T, m *mirror) string {
		t.Helper()
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		f := fetcher{client: m.Client(), progress: func(done, _ int64) {
			if done > 100_000 {
				cancel()
			}
		}}
		if _, err := f.fetch(ctx, m.URL+"/UniversalMac_15.1_Restore.ipsw", dir); !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted: %v", err)
		}
		parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
		if len(parts) != 1 {
			t.Fatalf("there is %q", parts)
		}
		return dir
	}
	t.Run("goes on another time", func(t *testing.T) {
		m := newMirror(t)
		dir := interrupted(t, m)
		m.mustFetch(t, dir)
		if !strings.HasPrefix(m.ranges[1], "bytes=") {
			t.Errorf("asked for were %q", m.ranges)
		}
	})
	t.Run("another file of the name", func(t *testing.T) {
		m := newMirror(t)
		dir := interrupted(t, m)
		m.content, m.tag = bytes.Repeat([]byte("other"), 1<<16), `"two"`
		m.mustFetch(t, dir)
	})
	t.Run("tags that say nothing", func(t *testing.T) {
		m := newMirror(t)
		m.tag = `W/"weak"`
		dir := interrupted(t, m)
		m.mustFetch(t, dir)
		if m.ranges[1] != "" {
			t.Errorf("asked for were %q", m.ranges)
		}
	})
	t.Run("more than the file", func(t *testing.T) {
		m := newMirror(t)
		dir := interrupted(t, m)
		parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
		if err := os.Truncate(parts[0], int64(len(m.content))+1); err != nil {
			t.Fatal(err)
		}
		m.mustFetch(t, dir)
	})
	t.Run("a link in its place", func(t *testing.T) {
		m := newMirror(t)
		dir := interrupted(t, m)
		parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
		outside := filepath.Join(t.TempDir(), "outside")
		if err := errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Remove(parts[0]), os.Symlink(outside, parts[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := m.fetch(context.Background(), dir); !errors.Is(err, statefile.ErrDamaged) {
			t.Errorf("fetch() = %v", err)
		}
		if b, err := os.ReadFile(outside); string(b) != "kept" {
			t.Errorf("what the link leads to has %d bytes, %v", len(b), err)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		m := newMirror(t)
		m.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			m.ranges = append(m.ranges, "")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		if _, err := m.fetch(context.Background(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "503") || len(m.ranges) != fetchTries {
			t.Errorf("%d tries, %v", len(m.ranges), err)
		}
		m.ranges = nil
		m.Config.Handler = http.NotFoundHandler()
		if _, err := m.fetch(context.Background(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("not there: %v", err)
		}
	})
	t.Run("no https", func(t *testing.T) {
		f := fetcher{client: http.DefaultClient}
		if _, err := f.fetch(context.Background(), "http://127.0.0.1/x.ipsw", t.TempDir()); err == nil {
			t.Error("it is taken")
		}
	})
}

// A server that is hostile, or was taken over, ends a download with an error: it does not
// keep it waiting, fill the disk or send it to this host's own services.
func TestFetchFromAHostileServer(t *testing.T) {
	asked := make(chan string, 10)
	own := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer own.Close()
	elsewhere := "[fe80::1]" // an address of this host that is not the mirror's
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			elsewhere = n.IP.String()
		}
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	for name, tt := range map[string]struct {
		want  string
		serve http.HandlerFunc
	}{
		"drips":  {"fewer than 60 KiB came", drip},
		"silent": {"timeout awaiting response headers", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		"a byte each time": {"EOF", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(&cut{w, 1}, r, "", time.Time{}, strings.NewReader(strings.Repeat("x", 1000)))
		}},
		"huge":    {"no room for it", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000000000000000000") }},
		"to http": {"which is not https", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, own.URL+"/x", http.StatusFound) }},
		"to the host": {"an address of this host or its link", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+elsewhere+"/x", http.StatusFound)
		}},
		"to the metadata": {"an address of this host or its link", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/x", http.StatusFound)
		}},
		"round and round": {"sends us on 10 times", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t)
			m.Config.Handler = tt.serve
			f := fetcher{client: m.Client(), idle: 200 * time.Millisecond, progress: func(int64, int64) {}}
			u, err := url.Parse(m.URL)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.fetch(t.Context(), "https://"+u.Host+"/x.iso", t.TempDir()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("fetch() = %v, want %q", err, tt.want)
			}
			select {
			case path := <-asked:
				t.Errorf("this host's own service was asked for %s", path)
			default:
			}
		})
	}
}
