//go:build linux

package network

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A real client and a real server do through the rules what they do without: what is
// kept alive, bodies of each kind, both ways at once, early answers, and what is cut
// off.
func TestClients(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Trailer", "X-End")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("X-End", "yes")
		case "/big":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			_, _ = w.Write(big)
		case "/unchanged":
			w.WriteHeader(http.StatusNotModified)
		case "/hints":
			w.Header().Set("Link", "</x>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "then")
		case "/refused":
			w.WriteHeader(http.StatusRequestEntityTooLarge) // unread
		case "/cut":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	s.Config.ErrorLog = nil
	g := newGuestOf(t, mustAllow(t, "example.test"), func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, "tcp4", s.Listener.Addr().String())
	})
	g.ask("example.test")
	transport := &http.Transport{ExpectContinueTimeout: 5 * time.Second, DialContext: func(context.Context, string, string) (net.Conn, error) { return g.connect("198.51.100.10:80") }}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 2 {
		for _, tt := range []struct {
			method, path, body string
			expect             bool
			status             int
			want               string
		}{
			{"POST", "/echo", "hello", false, 200, "hello"},
			{"POST", "/echo", "hello", true, 200, "hello"},
			{"POST", "/echo", string(big), false, 200, string(big)},
			{"GET", "/big", "", false, 200, string(big)},
			{"HEAD", "/big", "", false, 200, ""},
			{"GET", "/unchanged", "", false, 304, ""},
			{"GET", "/hints", "", false, 200, "then"},
			{"POST", "/refused", "hello", true, 413, ""},
			{"GET", "/none", "", false, 200, ""},
		} {
			for _, chunked := range []bool{false, true} {
				var body io.Reader
				if tt.body != "" {
					if body = strings.NewReader(tt.body); chunked {
						body = struct{ io.Reader }{body}
					}
				}
				q, err := http.NewRequestWithContext(t.Context(), tt.method, "http://example.test"+tt.path, body)
				if err != nil {
					t.Fatal(err)
				}
				if tt.expect {
					q.Header.Set("Expect", "100-continue")
				}
				r, err := client.Do(q)
				if err != nil {
					t.Errorf("%s %s: %v", tt.method, tt.path, err)
					continue
				}
				got, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != tt.status || string(got) != tt.want || tt.path == "/echo" && r.Trailer.Get("X-End") != "yes" {
					t.Errorf("%s %s: %d, %.40q, %v, %v", tt.method, tt.path, r.StatusCode, got, r.Trailer, err)
				}
			}
		}
	}
	if n := g.net.Metrics().Connections; n > 10 {
		t.Errorf("%d connections: they are not kept", n)
	}
	r, err := client.Get("http://example.test/cut")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("what was cut off looks whole: %q", got)
	}
	if list, _ := g.net.Denied(); len(list) != 0 {
		t.Errorf("denied: %v", list)
	}
}

// HTTP/2, and TLS 1.2, pass.
func TestTLSClients(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	g := newGuestOf(t, mustAllow(t, "example.test"), func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, "tcp4", s.Listener.Addr().String())
	})
	g.ask("example.test")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: version},
			DialContext: func(context.Context, string, string) (net.Conn, error) { return g.connect("198.51.100.10:443") }}}
		for range 3 {
			r, err := client.Post("https://example.test/", "text/plain", strings.NewReader(strings.Repeat("hello", 50000)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || len(got) != 250000 || r.ProtoMajor != 2 || r.TLS.Version != version {
				t.Errorf("%d bytes by %s, TLS %x, %v", len(got), r.Proto, r.TLS.Version, err)
			}
		}
		client.CloseIdleConnections()
	}
}
