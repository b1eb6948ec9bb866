package redirects

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A server's redirect leads to no service of this host, by whichever of its addresses,
// and to no metadata of a cloud's. It is not connected to: the error says why.
func TestConfine(t *testing.T) {
	type row struct {
		server, to string
		refused    bool
	}
	rows := []row{
		{"https://example.test:5000", "127.0.0.1:1", true}, {"https://example.test", "[::1]:1", true}, {"https://example.test", "0.0.0.0:1", true},
		{"https://example.test", "[::ffff:127.0.0.1]:1", true}, {"https://example.test", "localhost:1", true}, {"https://10.0.0.9:5000", "127.0.0.1:1", true},
		{"https://example.test", "169.254.169.254:80", true}, {"https://127.0.0.1:5000", "169.254.169.254:80", true}, {"https://localhost:5000", "[fe80::1%lo]:80", true},
		{"https://example.test", "100.100.100.200:80", true}, {"https://example.test", "168.63.129.16:80", true}, {"https://example.test", "[fd00:ec2::254]:80", true},
		{"https://127.0.0.1:5000", "127.0.0.1:1", false}, {"https://localhost:5000", "127.0.0.1:1", false}, {"https://127.0.0.1:5000", "localhost:1", false},
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			at := net.JoinHostPort(n.IP.String(), "1")
			rows = append(rows, row{"https://example.test", at, true}, row{"https://" + at, at, false}, row{"https://127.0.0.1", at, true})
		}
	}
	for _, tt := range rows {
		server, err := url.Parse(tt.server)
		if err != nil {
			t.Fatal(err)
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.Proxy = nil
		Confine(transport, server)
		conn, err := transport.DialContext(t.Context(), "tcp", tt.to)
		if err == nil {
			conn.Close()
			if tt.refused {
				t.Errorf("%s: %s answers", tt.server, tt.to)
			}
			continue
		}
		if got := strings.Contains(err.Error(), "which is an address of this host or its link"); got != tt.refused {
			t.Errorf("a redirect of %s to %s: %v", tt.server, tt.to, err)
		}
	}
}

// A server behind a proxy sends nobody past the proxy to this host, nor to the proxy
// itself: Go connects to the loopback directly whatever the proxy, and to what NO_PROXY
// names.
func TestConfineBehindAProxy(t *testing.T) {
	var reached atomic.Int32
	here := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer here.Close()
	for _, tt := range []struct{ name, to, refused string }{
		{"the loopback", here.URL + "/internal", "which is an address of this host or its link"},
		{"a name past the proxy", strings.Replace(here.URL, "127.0.0.1", "localhost", 1) + "/internal", "which is an address of this host or its link"},
		{"metadata past the proxy", "http://169.254.169.254:1/", "which is an address of this host or its link"},
		{"the proxy", "PROXY", "which is our proxy"},
		{"another server", "http://other.test/", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var proxied atomic.Value
			proxied.Store("")
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				proxied.Store(r.URL.String())
				if r.Host == "registry.test" {
					http.Redirect(w, r, strings.Replace(tt.to, "PROXY", "http://"+r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), 1), http.StatusTemporaryRedirect)
				}
			}))
			defer proxy.Close()
			at, err := url.Parse(proxy.URL)
			if err != nil {
				t.Fatal(err)
			}
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.Proxy = func(req *http.Request) (*url.URL, error) { // as http.ProxyFromEnvironment
				if host := req.URL.Hostname(); strings.HasSuffix(host, ".test") {
					return at, nil
				}
				return nil, nil
			}
			Confine(transport, &url.URL{Scheme: "http", Host: "registry.test"})
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get("http://registry.test/v2/")
			if err == nil {
				resp.Body.Close()
			}
			switch {
			case tt.refused == "" && (err != nil || proxied.Load() != tt.to):
				t.Errorf("through the proxy: %v; it was last asked for %q", err, proxied.Load())
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("a redirect to %s: %v", tt.to, err)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("a service of this host was reached %d times", n)
	}
}

// Of a name with several addresses, only the one that the server was found at may be
// this host's.
func TestFirstAddressStays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &confined{host: "127.0.0.1", ports: []string{port}} // as a name that means it: neither literal nor loopback
	conn, err := c.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if c.at.String() != "127.0.0.1" {
		t.Fatalf("the server is at %v", c.at)
	}
	conn, err = c.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("again: %v", err)
	}
	conn.Close()
	// What its name leads to now, and what else is at its address.
	for _, to := range []string{"127.0.0.2:" + port, "[::1]:" + port, "127.0.0.1:1"} {
		if _, err := c.dial(t.Context(), "tcp", to); err == nil || !strings.Contains(err.Error(), "which is an address of this host or its link") {
			t.Errorf("then to %s: %v", to, err)
		}
	}
}
