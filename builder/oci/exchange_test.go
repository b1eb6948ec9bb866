package oci

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/net/dns/dnsmessage"
)

// Whatever is exchanged with a registry, its redirects lead to no service of this
// host: that one would be asked, or sent an image, in this host's name.
func TestRedirectsOfEveryExchange(t *testing.T) {
	var asked atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		w.WriteHeader(http.StatusCreated)
	}))
	defer inner.Close()
	// A name: the library refuses addresses by itself.
	elsewhere := strings.Replace(inner.URL, "127.0.0.1", "elsewhere.test", 1) + "/x"
	var sends atomic.Value // what the registry sends elsewhere, a string
	sends.Store("")
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part := sends.Load().(string)
		switch {
		case r.URL.Path == "/v2/":
		case part != "" && strings.Contains(r.URL.Path, part):
			http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		case strings.HasSuffix(r.URL.Path, "/uploads/"):
			w.Header().Set("Location", elsewhere)
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer registry.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(registry.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	resolve(t, func(name string) string {
		if name == "registry.localhost." || name == "elsewhere.test." {
			return "127.0.0.1"
		}
		return ""
	})
	ref := "registry.localhost:" + port + "/x:latest"
	content := "a layer"
	hash, size, err := v1.SHA256(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
	layers := []Layer{{MediaType: string(types.OCILayer), Digest: hash, DiffID: hash, Size: size, Open: open}}
	blob := Blob{Name: "b", MediaType: "text/plain", Digest: hash, Size: size, Open: func() (io.ReadCloser, error) { return open(t.Context()) }}
	there := t.TempDir()
	if _, err := Save(t.Context(), Destination{Kind: "oci", Path: there, Tag: "latest"}, []byte(`{}`), nil, layers); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		sends string
		do    func(context.Context) (string, error)
	}{
		"copy from": {"/manifests/", func(ctx context.Context) (string, error) { return Copy(ctx, ref, "oci:"+t.TempDir(), CopyOptions{}) }},
		"copy to": {"", func(ctx context.Context) (string, error) {
			return Copy(ctx, "oci:"+there+":latest", ref, CopyOptions{})
		}},
		"push":             {"", func(ctx context.Context) (string, error) { return Push(ctx, ref, []byte(`{}`), nil, layers, nil) }},
		"push, redirected": {"/uploads/", func(ctx context.Context) (string, error) { return Push(ctx, ref, []byte(`{}`), nil, layers, nil) }},
		"push an index": {"", func(ctx context.Context) (string, error) {
			return PushIndex(ctx, ref, []Pushed{{Config: []byte(`{"os":"linux","architecture":"amd64"}`), Layers: layers}}, nil)
		}},
		"push an artifact": {"", func(ctx context.Context) (string, error) {
			return PushArtifact(ctx, ref, Artifact{ConfigType: "text/plain", Config: []byte("{}"), Blobs: []Blob{blob}}, nil)
		}},
		"attach": {"", func(ctx context.Context) (string, error) {
			return Attach(ctx, ref, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash, Size: size}, Attachment{Type: "text/plain", Body: []byte("x")})
		}},
		"describe": {"/manifests/", func(ctx context.Context) (string, error) {
			d, err := Describe(ctx, ref, hash.String())
			return d.Digest.String(), err
		}},
	} {
		sends.Store(tt.sends)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if got, err := tt.do(ctx); err == nil || !strings.Contains(err.Error(), "which is an address of this host or its link") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		cancel()
		if n := asked.Swap(0); n > 0 {
			t.Errorf("%s: this host's own service was asked %d times", name, n)
		}
	}
}

// A registry whose name leads elsewhere the second time leads there with nothing that
// it sends a client to: not to a cloud's metadata, and to no service of this host.
func TestRegistryOfTwoAddresses(t *testing.T) {
	var sent atomic.Bool // elsewhere
	var second atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // so that the next request connects
		if r.URL.Path != "/v2/" {
			sent.Store(true)
			_, port, _ := net.SplitHostPort(r.Host)
			http.Redirect(w, r, "http://registry.localhost:"+port+"/metadata", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	resolve(t, func(name string) string {
		if name != "registry.localhost." {
			return ""
		}
		if sent.Load() {
			return second.Load().(string)
		}
		return "127.0.0.1"
	})
	for _, address := range []string{"169.254.169.254", "127.0.0.2"} {
		second.Store(address)
		sent.Store(false)
		r, err := inRegistry("registry.localhost:" + port + "/x:latest")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := dial(ctx, r.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.manifest(ctx, "latest"); err == nil || !strings.Contains(err.Error(), "sends us to "+address) {
			t.Errorf("then it is %s: %v", address, err)
		}
		c.close()
		cancel()
	}
}

// A registry with two addresses from the beginning is found at the first. When that one
// closes, what its redirects lead to at the other is no service of this host.
func TestRegistryOfTwoAddressesAtOnce(t *testing.T) {
	listen := func(address string) net.Listener {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := listen("127.0.0.1:0")
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	own := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })}
	here := listen("127.0.0.2:" + port)
	go func() { _ = own.Serve(here) }()
	defer own.Close()
	registry := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		if r.URL.Path != "/v2/" {
			l.Close()
			http.Redirect(w, r, "http://registry.localhost:"+port+"/internal", http.StatusTemporaryRedirect)
		}
	})}
	go func() { _ = registry.Serve(l) }()
	defer registry.Close()
	resolve(t, func(name string) string {
		if name != "registry.localhost." {
			return ""
		}
		return "127.0.0.1 127.0.0.2"
	})
	r, err := inRegistry("registry.localhost:" + port + "/x:latest")
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(t.Context(), r.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if got, _, err := c.manifest(t.Context(), "latest"); err == nil || asked.Load() > 0 {
		t.Errorf("this host's own service was asked %d times: %q, %v", asked.Load(), got, err)
	}
}

// resolve has names be what address says, addresses with blanks between, until the test
// ends; "": there is none.
func resolve(t *testing.T, address func(name string) string) {
	t.Helper()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			// As over TCP (RFC 1035, 4.2.2): a length of two bytes, and the message.
			var length [2]byte
			if _, err := io.ReadFull(server, length[:]); err != nil {
				return
			}
			b := make([]byte, binary.BigEndian.Uint16(length[:]))
			var m dnsmessage.Message
			if _, err := io.ReadFull(server, b); err != nil || m.Unpack(b) != nil {
				return
			}
			m.Response, m.Additionals = true, nil
			for _, q := range m.Questions {
				if q.Type != dnsmessage.TypeA {
					continue
				}
				for _, text := range strings.Fields(address(q.Name.String())) {
					at, err := netip.ParseAddr(text)
					if err != nil {
						continue
					}
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: at.As4()}})
				}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
		}()
		return client, nil
	}}
}

// A server that takes nothing of what it is sent, or drips its answer, is not waited
// for.
func TestPacedExchange(t *testing.T) {
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut || r.Method == http.MethodHead {
			<-end
			return
		}
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond) // the speed is what is tested
		}
	}))
	defer server.Close()
	defer close(end)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pool := &http.Transport{}
	defer pool.CloseIdleConnections()
	client := &http.Client{Transport: paced{pool, 50 * time.Millisecond, 100 * time.Millisecond, time.Minute}}
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL, io.LimitReader(zeros{}, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Do(put)
	var failed *url.Error
	if !errors.As(err, &failed) || failed.Err.Error() != "the registry has taken nothing for 50ms" {
		t.Errorf("it takes nothing: %v", err)
	}
	head, err := http.NewRequestWithContext(ctx, http.MethodHead, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = client.Do(head); !errors.As(err, &failed) || failed.Err.Error() != "the registry has not answered for 100ms" {
		t.Errorf("it does not answer: %v", err)
	}
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(get)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil || !strings.HasSuffix(err.Error(), "came in 50ms") && !strings.HasSuffix(err.Error(), "came for 50ms") {
		t.Errorf("it drips: %v", err)
	}
}

// What is read into memory has an end in time, in size and in the parts it has, and a
// blob has none of these.
func TestAnswersThatAreSmall(t *testing.T) {
	const blob = "/v2/x/blobs/sha256:aa"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part, pause := strings.Repeat("x", 1<<20), time.Duration(0)
		switch r.URL.Query().Get("is") {
		case "elsewhere":
			http.Redirect(w, r, blob, http.StatusTemporaryRedirect)
			return
		case "drip":
			part, pause = strings.Repeat("x", 64<<10), 5*time.Millisecond // the speed is what is tested
		case "parts":
			part = "{},{},"
		}
		if strings.HasSuffix(r.URL.Path, "/blobs/sha256:bb") {
			http.Redirect(w, r, "/elsewhere?key=1", http.StatusTemporaryRedirect)
			return
		}
		for n := 0; n < 16<<20 && r.Context().Err() == nil; n += len(part) {
			_, _ = io.WriteString(w, part)
			time.Sleep(pause)
		}
	}))
	defer server.Close()
	pool := &http.Transport{}
	defer pool.CloseIdleConnections()
	const short = 50 * time.Millisecond
	for _, tt := range []struct {
		method, path string
		patience     time.Duration
		want         string
	}{
		{"GET", "/v2/?is=drip", short, "the registry's answer has not come for 50ms"},
		{"GET", "/v2/x/manifests/latest?is=drip", short, "the registry's answer has not come for 50ms"},
		{"GET", "/v2/x/referrers/sha256:aa?is=drip", short, "the registry's answer has not come for 50ms"},
		{"GET", blob + "?is=drip", short, "the registry's answer has not come for 50ms"}, // a token's
		{"POST", "/token?is=drip", short, "the registry's answer has not come for 50ms"},
		{"GET", "/v2/x/manifests/latest", time.Minute, "the registry's answer is longer than 8388608 bytes"},
		{"GET", "/v2/x/manifests/latest?is=elsewhere", time.Minute, "the registry's answer is longer than 8388608 bytes"},
		{"PUT", blob, time.Minute, "the registry's answer is longer than 8388608 bytes"},
		{"GET", "/v2/x/manifests/latest?is=parts", time.Minute, "the registry's answer has more than 131072 parts"},
		{"GET", blob, time.Nanosecond, ""},
		{"GET", "/v2/x/blobs/sha256:bb", time.Nanosecond, ""},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req, err := http.NewRequestWithContext(ctx, tt.method, server.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: paced{pool, time.Minute, time.Minute, tt.patience}}).Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", tt.method, tt.path, err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		cancel()
		if tt.want == "" && (err != nil || n != 16<<20) || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want)) {
			t.Errorf("%s %s: %d bytes, %v", tt.method, tt.path, n, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
