//go:build linux

package network

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var site10 = netip.MustParseAddr("198.51.100.10")

// webServer is a real server with two sites at one address: listed.test and, for
// whatever else is asked of it, evil.test.
type webServer struct {
	name    string
	address string
	evil    func() int64 // how often the second was reached
}

// startServer runs a server in the foreground until the test ends.
func startServer(t *testing.T, address, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && testing.Short() {
		t.Skipf("with -short: it needs %s", program)
	}
	if err != nil {
		t.Fatalf("%v; ./setup.sh --test installs it", err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// lines counts the lines of a log that begin with a status that says that a site
// was reached: those that refuse a request as none are logged for the first site.
func reachedLines(t *testing.T, log string) func() int64 {
	return func() int64 {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for line := range strings.Lines(string(b)) {
			if status, _, _ := strings.Cut(line, " "); status != "400" && status != "408" && status != "" {
				n++
			}
		}
		return n
	}
}

func config(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// openDir is a directory that a server's own user can read, too.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lumina-web-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startNginx(t *testing.T) (plain, secure webServer) {
	t.Helper()
	dir := openDir(t)
	certificate, key := selfSigned(t, dir, "listed.test")
	evilCertificate, evilKey := selfSigned(t, dir, "evil.test")
	plain = webServer{"nginx", freePort(t), reachedLines(t, dir+"/evil.log")}
	secure = webServer{"nginx with TLS", freePort(t), nil}
	conf := config(t, "nginx.conf", fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log /dev/null;
events { worker_connections 1024; }
http { log_format status '$status $request'; access_log %[1]s/listed.log status;
client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
underscores_in_headers on; ignore_invalid_headers off; ssl_protocols TLSv1.2 TLSv1.3;
server { listen %[2]s default_server; server_name evil.test; access_log %[1]s/evil.log status; location / { return 200 "EVIL\n"; } }
server { listen %[2]s; server_name listed.test; location / { return 200 "listed\n"; } }
server { listen %[3]s ssl default_server; server_name evil.test; ssl_certificate %[4]s; ssl_certificate_key %[5]s; location / { return 200 "EVIL\n"; } }
server { listen %[3]s ssl; server_name listed.test; ssl_certificate %[6]s; ssl_certificate_key %[7]s; location / { return 200 "listed\n"; } }
}`, dir, plain.address, secure.address, evilCertificate, evilKey, certificate, key))
	startServer(t, plain.address, "/usr/sbin/nginx", "-c", conf, "-e", "/dev/null")
	return plain, secure
}

func startApache(t *testing.T) webServer {
	t.Helper()
	dir := openDir(t)
	for _, site := range []string{"evil", "listed"} {
		if err := os.MkdirAll(filepath.Join(dir, site), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, site, "index.html"), []byte(site+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := webServer{"Apache", freePort(t), reachedLines(t, dir+"/evil.log")}
	conf := config(t, "apache.conf", fmt.Sprintf(`ServerRoot %[1]s
Listen %[2]s
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
ServerName evil.test
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
Protocols h2c http/1.1
ErrorLog /dev/null
LogFormat "%%>s %%r" status
<VirtualHost %[2]s>
ServerName evil.test
DocumentRoot %[1]s/evil
CustomLog %[1]s/evil.log status
</VirtualHost>
<VirtualHost %[2]s>
ServerName listed.test
DocumentRoot %[1]s/listed
CustomLog %[1]s/listed.log status
</VirtualHost>
`, dir, s.address))
	startServer(t, s.address, "/usr/sbin/apache2", "-DFOREGROUND", "-f", conf)
	return s
}

func startHAProxy(t *testing.T) webServer {
	t.Helper()
	var evil atomic.Int64
	backend := func(hits *atomic.Int64) string {
		b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			hits.Add(1)
			_, _ = io.WriteString(w, "site\n")
		}))
		t.Cleanup(b.Close)
		return b.Listener.Addr().String()
	}
	s := webServer{"HAProxy", freePort(t), evil.Load}
	conf := config(t, "haproxy.cfg", fmt.Sprintf(`global
 maxconn 500
defaults
 mode http
 timeout connect 5s
 timeout client 5s
 timeout server 5s
frontend web
 bind %s
 use_backend listed if { req.hdr(host) -i listed.test }
 default_backend evil
backend listed
 server a %s
backend evil
 server a %s
`, s.address, backend(new(atomic.Int64)), backend(&evil)))
	startServer(t, s.address, "/usr/sbin/haproxy", "-db", "-f", conf)
	return s
}

func selfSigned(t testing.TB, dir, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// mutator makes requests that a go-between and a server may read differently.
type mutator struct{ *mathrand.Rand }

func newMutator(seed int) mutator {
	return mutator{mathrand.New(mathrand.NewPCG(uint64(seed), 17))}
}

func (m mutator) one(list ...string) string { return list[m.IntN(len(list))] }

// mostly is the good one, three times of four.
func (m mutator) mostly(good string, odd ...string) string {
	if m.IntN(4) > 0 {
		return good
	}
	return m.one(odd...)
}

const evilRequest = "GET /?smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n"

func (m mutator) odd() string {
	return m.one("\x00", "\x01", "\t", "\n", "\v", "\f", "\r", "\x1b", " ", "\x7f", "\x80", "\x85", "\xa0", "\xff", "\r\n", ":", ",", ";", "@", "/", "#", "?", "\\", "%00", "%0d%0a")
}

func (m mutator) host() string {
	return m.one("listed.test", "listed.test", "LISTED.test:80", "listed.test.", "evil.test", "evil.test:80:listed.test", "listed.test@evil.test", "evil.test@listed.test",
		"listed.test, evil.test", "evil.test, listed.test", "listed.test evil.test", "evil.test\x00.listed.test", "listed.test\x00", "evil.test#listed.test",
		"evil.test/.listed.test", "listed.test:evil.test", "listed.test:80@evil.test", "[::1]", "127.0.0.1", "", "listed.test:", "listed.test:0", "listed.test:+80",
		"evil.test?x.listed.test", "listed.test\tevil.test", "\xfflisted.test", "listed.test\xff", "evil.test;listed.test", "evil.test.listed.test:80:80")
}

// headers are a Host and what goes wrong with it.
func (m mutator) headers() string {
	switch m.IntN(18) {
	case 0:
		return "Host: listed.test\r\nHost: evil.test\r\n"
	case 1:
		return "Host: evil.test\r\nHost: listed.test\r\n"
	case 2:
		return "Host:" + m.odd() + m.host() + "\r\n"
	case 3:
		return "Host" + m.odd() + ": " + m.host() + "\r\n" + m.one("", "Host: listed.test\r\n")
	case 4:
		return "Host: listed.test\r\n" + m.odd() + "Host: evil.test\r\n"
	case 5:
		return "X: y\r\n" + m.one(" ", "\t") + "Host: evil.test\r\nHost: listed.test\r\n"
	case 6:
		return "Host:\r\n " + m.host() + "\r\n"
	case 7:
		return "Host: listed.test" + m.one("\n", "\r", "\r\r\n", "\n\r") + "Host: evil.test\r\n"
	case 8:
		return "host: " + m.host() + "\r\nX-Host: evil.test\r\nConnection: " + m.one("host", "close, Host", "keep-alive") + "\r\n"
	}
	return "Host: " + m.mostly("listed.test", m.host()) + "\r\n"
}

// body is the rest of the head, and a body that may hide a request.
func (m mutator) body() string {
	size := strconv.Itoa(len(evilRequest))
	chunk := strconv.FormatInt(int64(len(evilRequest)), 16)
	encoding := m.mostly("chunked", "Chunked", " chunked", "\tchunked", "chunked ", "xchunked", "chunked, identity", "identity, chunked", "identity", "gzip, chunked", "chunked;q=1", "\"chunked\"",
		"chunk", "chunked\x00", "\x0bchunked", "chunked,", ",chunked", "chunked\r\n ")
	name := m.mostly("Transfer-Encoding", "transfer-encoding", "Transfer-Encoding ", " Transfer-Encoding", "Transfer_Encoding", "Transfer-Encoding\t", "X: y\nTransfer-Encoding", "\x00Transfer-Encoding")
	length := m.mostly(m.one("0", size), "+"+size, "-1", "0x10", " "+size, size+", "+size, "0, "+size, size+" ", "0"+size, "1e1", "", size+"\x00", "18446744073709551616", "5")
	end := m.mostly("0\r\n\r\n", "0\n\n", "00\r\n\r\n", "0;x\r\n\r\n", "0\r\nX: y\r\n\r\n", "0\r\nHost: evil.test\r\n\r\n", "0 \r\n\r\n", "0x0\r\n\r\n", "0\r\n")
	header := m.mostly(chunk, chunk+";a=b", chunk+" ", "0x"+chunk, "+"+chunk, strings.ToUpper(chunk), "00"+chunk, chunk+"\t", chunk+";\n", "-"+chunk, "1", chunk+"\r")
	switch m.IntN(9) {
	case 0:
		return "\r\n"
	case 1:
		return "Content-Length: " + length + "\r\n\r\n" + evilRequest
	case 2:
		return name + ": " + encoding + "\r\n\r\n" + end + evilRequest
	case 3:
		return name + ": " + encoding + "\r\nContent-Length: " + length + "\r\n\r\n" + end + evilRequest
	case 4:
		return "Content-Length: " + length + "\r\nContent-Length: " + m.one("0", size, length) + "\r\n\r\n" + evilRequest
	case 5:
		return "Transfer-Encoding: " + m.one("chunked", encoding) + "\r\n\r\n" + header + m.mostly("\r\n", "\n", "\r") + evilRequest + m.one("\r\n", "\n", "") + end + m.one("", evilRequest)
	case 6:
		return "Transfer-Encoding: chunked\r\nTransfer-Encoding: " + m.one("identity", "chunked", "x") + "\r\n\r\n" + end + evilRequest
	case 7:
		return "Connection: " + m.one("Upgrade", "upgrade, HTTP2-Settings", "Upgrade, close") + "\r\nUpgrade: " + m.one("websocket", "h2c", "TLS/1.0", "websocket, h2c", "HTTP/2.0") +
			"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" + m.one(evilRequest, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	return "Expect: 100-continue\r\nContent-Length: " + length + "\r\n\r\n" + evilRequest
}

// request is the seed's request, mutated.
func (m mutator) request() string {
	method := m.mostly(m.one("GET", "POST"), "PUT", "HEAD", "OPTIONS", "get", "Get", "XYZZY", "CONNECT", "TRACE", "PRI", "", "GET\x00", "G\xffT", "{}")
	target := m.mostly("/", "/\xff", "/\x00", "/\x01x", "*", "http://evil.test/", "http://listed.test/", "http://listed.test@evil.test/", "http://evil.test:80:listed.test/",
		"HTTP://evil.test/", "//evil.test/", "evil.test", "evil.test:80", "listed.test:80", "/ x", "/\t", "http:///x", "http://evil.test", "/%0d%0aHost:%20evil.test", "/?\x80", "https://evil.test/", "http://listed.test\\@evil.test/")
	version := m.mostly("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/1.2", "HTTP/01.1", "HTTP/1.1 ", "HTTP/1.1x", "", "HTTP/1.10", "\xff", "HTTP/1.\x00")
	gap := m.mostly(" ", "  ", "\t", "\v", "\r", "\xa0")
	text := method + gap + target + m.mostly(" ", gap) + version + m.mostly("\r\n", "\n", "\r", "\r\r\n") + m.headers() + m.body()
	if m.IntN(4) == 0 { // one that is whole comes first
		text = "GET /?first HTTP/1.1\r\nHost: listed.test\r\n\r\n" + text
	}
	if m.IntN(4) == 0 {
		text += evilRequest
	}
	if m.IntN(8) == 0 {
		text = m.one("\r\n", "\n", "\r\n\r\n", " ", "\x00", "\xef\xbb\xbf", "\t") + text
	}
	for range max(m.IntN(5)-2, 0) {
		at := m.IntN(len(text))
		switch m.IntN(3) {
		case 0:
			text = text[:at] + m.odd() + text[at:]
		case 1:
			text = text[:at] + text[at+1:]
		default:
			text = text[:at] + string([]byte{byte(m.IntN(256))}) + text[at+1:]
		}
	}
	if m.IntN(16) == 0 {
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	return text
}

// exchange sends a request, ends, and returns all that comes back.
func exchange(c net.Conn, text string) string {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, text)
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	b, _ := io.ReadAll(c)
	c.Close()
	return string(b)
}

// mutations is how many requests are tried.
func mutations(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("LUMINA_TEST_MUTATIONS")); err == nil {
		return n
	}
	if testing.Short() {
		return 600
	}
	return 10000
}

// No mutated request reaches a site that is not listed, on a server that has it at
// the same address, and for which it is the one that what it cannot place goes to.
// Without the rules between them, many do.
func TestMutatedRequests(t *testing.T) {
	nginx, _ := startNginx(t)
	servers := []webServer{nginx, startApache(t), startHAProxy(t)}
	total := mutations(t)
	for i, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			g := newGuestOf(t, mustAllow(t, "listed.test"), func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp4", s.address) })
			g.net.names.add(site10, "listed.test")
			if got := g.must(t, "198.51.100.10:80", "GET / HTTP/1.1\r\nHost: listed.test:80\r\n\r\nPOST / HTTP/1.1\r\nHost: LISTED.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"); strings.Count(got, "HTTP/1.1 200") != 2 {
				t.Fatalf("two good requests: %q", got)
			}
			first := i * total / len(servers)
			last := (i + 1) * total / len(servers)
			each := func(do func(text string)) {
				var wg sync.WaitGroup
				next := atomic.Int64{}
				next.Store(int64(first))
				for range 8 {
					wg.Go(func() {
						for seed := int(next.Add(1)) - 1; seed < last; seed = int(next.Add(1)) - 1 {
							do(newMutator(seed).request())
						}
					})
				}
				wg.Wait()
			}
			var answered atomic.Int64
			each(func(text string) {
				before := s.evil()
				c, err := g.connect("198.51.100.10:80")
				if err != nil {
					t.Errorf("%q: %v", text, err)
					return
				}
				got := exchange(c, text)
				if strings.Contains(got, "HTTP/1.1 200") {
					answered.Add(1)
				}
				if after := s.evil(); after != before {
					t.Errorf("evil.test was reached by one of: %q, which got %q", text, got)
				}
			})
			if n := s.evil(); n != 0 {
				t.Errorf("evil.test was reached %d times", n)
			}
			if answered.Load() == 0 {
				t.Error("listed.test was not reached: it is no wonder that evil.test was not")
			}
			each(func(text string) {
				if c, err := net.Dial("tcp4", s.address); err == nil {
					exchange(c, text)
				}
			})
			n := s.evil()
			t.Logf("of %d requests, %d were answered by listed.test; without the rules, evil.test was reached %d times", last-first, answered.Load(), n)
			if n < int64(last-first)/50 {
				t.Errorf("without the rules only %d requests reached evil.test", n)
			}
		})
	}
}

// No mutated TLS hello makes a server answer for another site than the rules took
// it for.
func TestMutatedHellos(t *testing.T) {
	_, secure := startNginx(t)
	hello := captureHello(t, "listed.test")
	evil := captureHello(t, "evil.test")
	g := newGuestOf(t, mustAllow(t, "listed.test"), func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp4", secure.address) })
	g.net.names.add(site10, "listed.test")
	if got := g.must(t, "198.51.100.10:443", string(hello)); !strings.Contains(got, "listed.test") {
		t.Fatalf("a good hello got %q", got)
	}
	n, direct, passed := mutations(t)/10, 0, 0
	for seed := range n {
		m := newMutator(seed)
		text := m.hello(hello, evil)
		if c, err := net.Dial("tcp4", secure.address); err == nil {
			_, _ = c.Write(text)
			if strings.Contains(exchange(c, ""), "evil.test") {
				direct++
			}
		}
		c, err := g.connect("198.51.100.10:443")
		if err != nil {
			t.Fatal(err)
		}
		switch got := exchange(c, string(text)); {
		case strings.Contains(got, "evil.test"):
			t.Errorf("evil.test answered to %x", text)
		case strings.Contains(got, "listed.test"):
			passed++
		}
	}
	t.Logf("of %d hellos, listed.test answered %d; without the rules, evil.test answered %d", n, passed, direct)
	if direct < n/20 || passed == 0 {
		t.Error("the hellos try nothing")
	}
}

// captureHello is what a client says first, of a version in which the server's
// certificate can be read.
func captureHello(t testing.TB, name string) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() { _ = tls.Client(near, &tls.Config{ServerName: name, MaxVersion: tls.VersionTLS12}).Handshake() }()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	far.Close()
	return b[:n]
}

// hello is one of another form, or another content.
func (m mutator) hello(hello, evil []byte) []byte {
	if m.IntN(4) == 0 {
		hello = evil
	}
	b := bytes.Clone(hello)
	for range m.IntN(3) {
		switch name := bytes.Index(b, []byte("listed.test")); m.IntN(4) {
		case 0: // somewhere
			b[m.IntN(len(b))] = byte(m.IntN(256))
		case 1: // in what says how long something is
			if name > 9 {
				b[name-1-m.IntN(9)] ^= byte(1 << m.IntN(8))
			}
		case 2: // in the name
			if name > 0 {
				b[name+m.IntN(11)] = m.odd()[0]
			}
		case 3: // another name of the same length: the server's default answers
			if name > 0 {
				copy(b[name:], "listed.tes\x00")
			}
		}
	}
	if m.IntN(3) == 0 { // in several records, of whatever kind
		payload := b[recordHeader:]
		b = nil
		for len(payload) > 0 {
			size := min(1+m.IntN(120), len(payload))
			kind := byte(recordHandshake)
			if m.IntN(40) == 0 {
				kind = byte(20 + m.IntN(4))
			}
			b = append(b, kind, 3, byte(m.IntN(4)), 0, byte(size))
			b, payload = append(b, payload[:size]...), payload[size:]
		}
	}
	return b
}

// must says something and returns the answer.
func (g *guest) must(t *testing.T, to, text string) string {
	t.Helper()
	c, err := g.connect(to)
	if err != nil {
		t.Fatal(err)
	}
	return exchange(c, text)
}
