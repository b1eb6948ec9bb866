//go:build linux

package network

import (
	"bytes"
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
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// startRouter is HAProxy in front of two servers of TLS, of which it takes the one that a
// hello names; what names none that it knows goes to evil.test.
func startRouter(t *testing.T, listed string) webServer {
	t.Helper()
	dir := openDir(t)
	backend := func(name string) string {
		certificate, err := tls.LoadX509KeyPair(selfSigned(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS12}
		return listen(t, func(c *net.TCPConn) {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_ = tls.Server(c, config).Handshake()
			c.Close()
		})
	}
	s := webServer{"HAProxy by the names of TLS", freePort(t), nil}
	conf := config(t, "haproxy.cfg", fmt.Sprintf(`global
 maxconn 500
defaults
 mode tcp
 timeout connect 5s
 timeout client 1m
 timeout server 1m
frontend web
 bind %s
 tcp-request inspect-delay 5s
 tcp-request content accept if { req.ssl_hello_type 1 }
 use_backend listed if { req.ssl_sni -i %s }
 default_backend evil
backend listed
 server a %s
backend evil
 server a %s
`, s.address, listed, backend(listed), backend("evil.test")))
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
