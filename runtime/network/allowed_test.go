//go:build linux

package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestAllowedNamesAreReached(t *testing.T) {
	g := newGuest(t, mustAllow(t, "example.test, *.example.test,example.test:25,203.0.113.0/24:80"))
	if a, code := g.ask("Example.Test"); len(a) != 1 || code != 0 {
		t.Fatalf("example.test resolves to %v, %v", a, code)
	}
	for name, request := range map[string]string{
		"http":          "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
		"port":          "GET / HTTP/1.1\r\nHost: EXAMPLE.test:80\r\nConnection: close\r\n\r\n",
		"body":          "POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
		"two at a time": "GET / HTTP/1.1\r\nHost: example.test\r\n\r\nGET / HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n",
	} {
		if got, err := g.say("198.51.100.10:80", request); err != nil || !strings.Contains(got, "200 OK") || strings.Contains(got, "403") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := g.handshake("198.51.100.10:443", "www.example.test"); !strings.Contains(got, "GET www.example.test 0") {
		t.Errorf("https: %q, %v", got, err)
	}
	if got, err := g.handshake("198.51.100.10:443", "WWW.Example.Test"); !strings.Contains(got, "GET WWW.Example.Test 0") {
		t.Errorf("https, a name in capitals: %q, %v", got, err)
	}
	if got := answered(g, sni([]byte("example.test"), 0)); got != recordHandshake {
		t.Errorf("a hello that the test has made gets an answer that begins with %d", got)
	}
	if got, err := g.say("198.51.100.10:25", "HELO me\r\n"); got != "220 hello\r\n250 HELO me\r\n" {
		t.Errorf("a server that speaks first: %q, %v", got, err)
	}
	if got, err := g.say("203.0.113.7:80", "GET / HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "200 OK") {
		t.Errorf("an address that is allowed: %q, %v", got, err)
	}
	if list, _ := g.net.Denied(); len(list) != 0 {
		t.Errorf("denied: %v", list)
	}
	if m := g.net.Metrics(); m.Connections < 7 || m.ReceivedBytes == 0 || m.SentPackets == 0 {
		t.Errorf("metrics: %+v", m)
	}
}

// Ways round a list of names: each fails, and is on record.
func TestWaysRoundTheNames(t *testing.T) {
	resolved := func(g *guest) { g.ask("example.test") }
	refused := func(g *guest, to string) string {
		if _, err := g.connect(to); err == nil {
			return "connected"
		}
		return ""
	}
	http := func(g *guest, request string) string {
		got, _ := g.say("198.51.100.10:80", request)
		g.site.mu.Lock()
		defer g.site.mu.Unlock()
		for _, host := range g.site.hosts {
			if !strings.Contains(host, "example.test") {
				return fmt.Sprintf("the server was asked for %s and said %q", host, got)
			}
		}
		if strings.Contains(got, "evil") && !strings.Contains(got, "403") {
			return got
		}
		return ""
	}
	tests := []struct {
		name string
		try  func(g *guest) (reached string)
	}{
		{"an address that no name was resolved to", func(g *guest) string { return refused(g, "198.51.100.10:80") }},
		{"another address", func(g *guest) string { resolved(g); return refused(g, "198.51.100.11:80") }},
		{"the port of another rule", func(g *guest) string { resolved(g); return refused(g, "198.51.100.10:8443") }},
		{"a name that is not allowed", func(g *guest) string {
			a, code := g.ask("evil.test")
			if len(a) != 0 || code != dnsmessage.RCodeRefused {
				return fmt.Sprint(a, code)
			}
			return ""
		}},
		{"a name that ends alike", func(g *guest) string {
			a, _ := g.ask("evilexample.test")
			return strings.Join(a, " ")
		}},
		{"a name that begins alike", func(g *guest) string {
			a, _ := g.ask("example.test.evil.test")
			return strings.Join(a, " ")
		}},
		{"data in a question", func(g *guest) string {
			a, _ := g.ask("secret.evil.test")
			return strings.Join(a, " ")
		}},
		{"rebinding to the loopback", func(g *guest) string {
			a, _ := g.ask("loop.example.test")
			return strings.Join(a, " ")
		}},
		{"rebinding to private addresses and metadata", func(g *guest) string {
			if a, _ := g.ask("lan.example.test"); len(a) != 1 || a[0] != "198.51.100.10" {
				return strings.Join(a, " ")
			}
			return refused(g, "10.1.2.3:80") + refused(g, "169.254.169.254:80")
		}},
		{"another resolver", func(g *guest) string { return g.datagram("198.51.100.53:53") }},
		{"QUIC", func(g *guest) string { resolved(g); return g.datagram("198.51.100.10:443") }},
		{"DNS over TLS", func(g *guest) string { return refused(g, "198.51.100.53:853") }},
		{"another name in the TLS handshake", func(g *guest) string {
			resolved(g)
			got, _ := g.handshake("198.51.100.10:443", "evil.test")
			return got
		}},
		{"no name in the TLS handshake", func(g *guest) string {
			resolved(g)
			got, _ := g.handshake("198.51.100.10:443", "")
			return got
		}},
		{"a broken TLS handshake", func(g *guest) string {
			resolved(g)
			got, _ := g.say("198.51.100.10:443", "\x16\x03\x01\x00\x05hello")
			return got
		}},
		{"another Host", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"another Host in the second request", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: example.test\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"two Hosts", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: example.test\r\nHost: evil.test\r\n\r\n")
		}},
		{"no Host", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.0\r\n\r\n")
		}},
		{"HTTP 0.9", func(g *guest) string {
			resolved(g)
			return http(g, "GET /evil\r\n")
		}},
		{"empty lines first", func(g *guest) string {
			resolved(g)
			return http(g, "\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a method of one's own", func(g *guest) string {
			resolved(g)
			return http(g, "XYZZY / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
		}},
		{"a method in small letters", func(g *guest) string {
			resolved(g)
			return http(g, "get / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
		}},
		{"a whole URL", func(g *guest) string {
			resolved(g)
			return http(g, "GET http://evil.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n")
		}},
		{"CONNECT", func(g *guest) string {
			resolved(g)
			return http(g, "CONNECT example.test:80 HTTP/1.1\r\nHost: example.test\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"HTTP/2 without TLS", func(g *guest) string {
			resolved(g)
			return http(g, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}},
		{"a smuggled request", func(g *guest) string {
			resolved(g)
			return http(g, "POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"an upgrade that is none", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a byte above 0x7f in the request line", func(g *guest) string {
			resolved(g)
			return http(g, "GET /\xff HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a control byte in the request line", func(g *guest) string {
			resolved(g)
			return http(g, "GET /\x01 HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a Host with two ports", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: evil.test:80:x.example.test\r\n\r\n")
		}},
		{"a name in the TLS handshake that is none", func(g *guest) string {
			resolved(g)
			got, _ := g.say("198.51.100.10:443", string(bytes.Replace(captureHello(g.t, "evil.test.x.example.test"), []byte("evil.test."), []byte("evil.test\x00"), 1)))
			return got
		}},
		{"the second hello of a TLS handshake", secondHello},
		{"a hello to a server of another protocol", plainServer},
		{"a request to a server of another protocol", plainAnswer},
		{"a hello to a port of another protocol", func(g *guest) string {
			g.ask("www.example.test")
			got, _ := g.handshake("198.51.100.10:25", "www.example.test")
			if list, _ := g.net.Denied(); len(list) != 1 || !strings.Contains(list[0].Reason, "of another protocol") {
				return fmt.Sprintf("%q, denied: %v", got, list)
			}
			return got
		}},
		{"a request to a port of another protocol", func(g *guest) string {
			g.ask("www.example.test")
			got, _ := g.say("198.51.100.10:25", "POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 9\r\n\r\nSET x y\r\n")
			if list, _ := g.net.Denied(); len(list) != 1 || !strings.Contains(list[0].Reason, "of another protocol") {
				return fmt.Sprintf("%q, denied: %v", got, list)
			}
			return ""
		}},
		{"a name in the TLS handshake with a dot at its end", func(g *guest) string {
			resolved(g)
			return hello(g, sni([]byte("example.test."), 0))
		}},
		{"two names in the TLS handshake", func(g *guest) string {
			resolved(g)
			return hello(g, sni([]byte("example.test"), 0, []byte("evil.test"), 0)) + hello(g, sni([]byte("evil.test"), 0, []byte("example.test"), 0))
		}},
		{"the names of the TLS handshake twice", func(g *guest) string {
			resolved(g)
			good, evil := sni([]byte("example.test"), 0), sni([]byte("evil.test"), 0)
			return hello(g, append(good, evil...)) + hello(g, append(evil, good...))
		}},
		{"a name of another type in the TLS handshake", func(g *guest) string {
			resolved(g)
			return hello(g, sni([]byte("example.test"), 1)) + hello(g, sni([]byte("example.test"), 1, []byte("evil.test"), 0))
		}},
		{"an address, no name or nothing in the TLS handshake", func(g *guest) string {
			resolved(g)
			return hello(g, sni([]byte("198.51.100.10"), 0)) + hello(g, sni([]byte(""), 0)) + hello(g, sni()) + hello(g, nil)
		}},
		{"a name of Unicode in the TLS handshake", func(g *guest) string {
			resolved(g)
			return hello(g, sni([]byte("\xef\xbd\x85xample.test"), 0)) + hello(g, sni([]byte("xn--example.test"), 0)) + hello(g, sni([]byte("exam\xc2\xadple.test"), 0))
		}},
		{"a TLS handshake in segments of one byte", func(g *guest) string {
			resolved(g)
			c, err := g.connect("198.51.100.10:443")
			if err != nil {
				return err.Error()
			}
			for _, b := range withSNI(g.t, sni([]byte("evil.test"), 0)) {
				if _, err := c.Write([]byte{b}); err != nil {
					break // it is refused as soon as it is whole
				}
			}
			b, _ := io.ReadAll(c)
			return string(b)
		}},
		{"a hello of SSL 2, of DTLS, and of Postgres before TLS", func(g *guest) string {
			resolved(g)
			got := ""
			for _, text := range []string{"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x00\x00\x04", "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x30\x01\x00", "\x00\x00\x00\x08\x04\xd2\x16\x2f"} {
				said, _ := g.say("198.51.100.10:443", text)
				got += said
			}
			if strings.HasPrefix(got, "HTTP/1.1 403") {
				return ""
			}
			return got
		}},
		{"QUIC and HTTP by UDP, where an entry has no port", func(g *guest) string {
			g.ask("www.example.test")
			return g.datagram("198.51.100.10:443") + g.datagram("198.51.100.10:80") + g.datagram("198.51.100.10:8443") + g.datagram("198.51.100.10:4433")
		}},
		{"another port in Host", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: example.test:81\r\n\r\n") + http(g, "GET http://example.test:443/ HTTP/1.1\r\nHost: example.test:443\r\n\r\n")
		}},
		{"a host in the trailer", func(g *guest) string {
			resolved(g)
			return http(g, "POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\nHost: evil.test\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a folded Host", func(g *guest) string {
			resolved(g)
			return http(g, "GET / HTTP/1.1\r\nHost: example.test\r\n\tevil.test\r\n\r\n") + http(g, "GET / HTTP/1.1\r\nX: a\r\n Host: evil.test\r\nHost: example.test\r\n\r\n")
		}},
		{"another Host after an answer of 100 and of 417", func(g *guest) string {
			resolved(g)
			return http(g, "POST / HTTP/1.1\r\nHost: example.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcdGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n") +
				http(g, "POST / HTTP/1.1\r\nHost: example.test\r\nExpect: what\r\nContent-Length: 4\r\n\r\nabcdGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
		}},
		{"a server that speaks first", func(g *guest) string {
			g.ask("www.example.test") // which an entry without a port allows
			c, err := g.connect("198.51.100.10:25")
			if err != nil {
				return err.Error()
			}
			b, _ := io.ReadAll(c) // the guest waits for it
			return string(b)
		}},
		{"the gateway", func(g *guest) string { return refused(g, Gateway+":80") }},
		{"the host's loopback", func(g *guest) string {
			g.patience = time.Second // a packet to it is dropped on the way
			return refused(g, "127.0.0.1:"+g.site.first[strings.LastIndexByte(g.site.first, ':')+1:])
		}},
		{"the host's own address", func(g *guest) string {
			if own := ownAddress(); own != "" {
				return refused(g, own+":80")
			}
			return ""
		}},
		{"broadcast", func(g *guest) string { return g.datagram("255.255.255.255:67") + g.datagram("10.0.2.255:9") }},
		{"multicast", func(g *guest) string { return g.datagram("224.0.0.251:5353") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuest(t, mustAllow(t, "example.test:80,example.test:443,*.example.test,203.0.113.0/24"))
			if reached := tt.try(g); reached != "" {
				t.Errorf("reached: %s", reached)
			}
			g.site.mu.Lock()
			defer g.site.mu.Unlock()
			for _, d := range g.site.dials {
				if !strings.HasPrefix(d, "tcp4 198.51.100.10:") {
					t.Errorf("the host dialled %s", d)
				}
			}
		})
	}
}

// hello says a TLS hello with these extensions in the place of the name, and returns what
// the server said.
func hello(g *guest, extensions []byte) string {
	got, _ := g.say("198.51.100.10:443", string(withSNI(g.t, extensions)))
	return got
}

// answered is how the answer to a hello begins. The server waits for more, so this does not
// read to the end.
func answered(g *guest, extensions []byte) byte {
	c, err := g.connect("198.51.100.10:443")
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(withSNI(g.t, extensions)); err != nil {
		g.t.Fatal(err)
	}
	b := make([]byte, 100)
	if _, err := io.ReadFull(c, b); err != nil {
		g.t.Fatal(err)
	}
	return b[0]
}

// sni is an extension of a TLS hello that has names, each followed by its type.
func sni(names ...any) []byte {
	var list []byte
	for i := 0; i < len(names); i += 2 {
		name := names[i].([]byte)
		list = append(list, byte(names[i+1].(int)))
		list = append(binary.BigEndian.AppendUint16(list, uint16(len(name))), name...)
	}
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(list)+2))
	return append(binary.BigEndian.AppendUint16(b, uint16(len(list))), list...)
}

// withSNI is a TLS hello with other extensions in the place of the one that has a name.
func withSNI(t testing.TB, extensions []byte) []byte {
	t.Helper()
	b := captureHello(t, "example.test")
	old := sni([]byte("example.test"), 0)
	at := bytes.Index(b, old)
	if at < 0 {
		t.Fatalf("the hello has no such name: %x", b)
	}
	// What says how long it is: the record, the message, and all extensions.
	all := recordHeader + handshakeHeader + 2 + 32
	all += 1 + int(b[all])                                    // the session
	all += 2 + int(binary.BigEndian.Uint16(b[all:]))          // the ciphers
	all += 1 + int(b[all])                                    // the compression
	lengths := []int{recordHeader - 2, recordHeader + 2, all} // the message's has three bytes
	b = slices.Concat(b[:at], extensions, b[at+len(old):])
	for _, at := range lengths {
		binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+uint16(len(extensions)-len(old)))
	}
	return b
}

// ownAddress is one of this host's that is not of the loopback; "" when it has none.
func ownAddress() string {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	return ""
}

func TestDeniedIsRecorded(t *testing.T) {
	g := newGuest(t, NAT(false))
	for range 3 {
		if _, err := g.connect("10.9.9.9:80"); err == nil {
			t.Fatal("a private address was reached")
		}
	}
	list, more := g.net.Denied()
	if len(list) != 1 || more != 0 || list[0].Count != 3 || list[0].Destination != "10.9.9.9:80" || list[0].Reason != "the address is private" {
		t.Errorf("denied: %+v, %d more", list, more)
	}
	for i := range maxDenied + 50 {
		g.net.deny("tcp", netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i+1)), "", "x")
	}
	if list, more := g.net.Denied(); len(list) != maxDenied || more != 51 {
		t.Errorf("%d listed, %d more", len(list), more)
	}
}
