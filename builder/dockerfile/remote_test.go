package dockerfile

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddOfAURL(t *testing.T) {
	b := newBench(t)
	tarball := archive(t, true, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dir/file.tgz":
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			_, _ = io.WriteString(w, tarball)
		case "/":
			_, _ = io.WriteString(w, "root")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	sum := sha256.Sum256([]byte(tarball))
	for _, tt := range []struct{ add, want string }{
		{"ADD URL/dir/file.tgz?x=1 /n/", fmt.Sprintf("n 0755 0:0 dir|n/file.tgz 0600 0:0 %q", tarball)},
		{"ADD --unpack URL/dir/file.tgz /n/", `n 0755 0:0 dir|n/f 0644 0:0 "of f"`},
		{"ADD --checksum=sha256:" + hex.EncodeToString(sum[:]) + " --chmod=755 URL/dir/file.tgz /x", fmt.Sprintf("x 0755 0:0 %q", tarball)},
		{"ADD URL /x", `x 0600 0:0 "root"`},
		{"ADD --checksum=sha256:" + strings.Repeat("0", 64) + " URL/dir/file.tgz /x", "! it has checksum sha256:" + hex.EncodeToString(sum[:])},
		{"ADD URL/none /x", "! the server answered 404 Not Found"},
	} {
		_, err := b.build(t, "made", "FROM scratch\n"+strings.ReplaceAll(tt.add, "URL", server.URL))
		if want, bad := strings.CutPrefix(tt.want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %s", tt.add, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.add, err)
			continue
		}
		if diff := cmp.Diff(tt.want, strings.Join(b.list(t, "made"), "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.add, diff)
		}
	}
}

// ADD connects to where the build may, also where a server redirects to, and through
// nobody else.
func TestAddConnectsWhereItMay(t *testing.T) {
	var asked atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "secret")
	}))
	defer inside.Close()
	outside := httptest.NewServer(http.RedirectHandler(inside.URL+"/internal", http.StatusFound))
	defer outside.Close()
	t.Setenv("http_proxy", inside.URL)
	refused := errors.New("not there")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != outside.Listener.Addr().String() {
			return nil, refused
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	for _, from := range []string{inside.URL, outside.URL, "http://x.test/y"} {
		b := newBench(t)
		if _, err := b.build(t, "made", "FROM scratch\nADD "+from+" /x", func(o *Options) { o.Dial = dial }); !errors.Is(err, refused) {
			t.Errorf("ADD %s: %v", from, err)
		}
		if _, err := b.build(t, "made", "FROM scratch\nADD "+from+" /x", func(o *Options) { o.Dial = nil }); err == nil {
			t.Errorf("ADD %s, where nothing is fetched: no error", from)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server inside was asked %d times", n)
	}
}
