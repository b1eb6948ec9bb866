//go:build linux

package network

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// site is the internet of these tests: what the host would reach.
type site struct {
	mu    sync.Mutex
	plain *httptest.Server // example.test and whoever else, at 198.51.100.10:80
	tls   *httptest.Server // at 198.51.100.10:443
	first string           // address of a server that speaks first, at 198.51.100.10:25
	hosts []string         // that requests named, in order
	dials []string
}

func newSite(t *testing.T) *site {
	s := &site{}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.hosts = append(s.hosts, r.Host)
		s.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Method, r.Host, len(body))
	})
	s.plain, s.tls = httptest.NewServer(serve), httptest.NewTLSServer(serve)
	t.Cleanup(s.plain.Close)
	t.Cleanup(s.tls.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, "220 hello\r\n")
				line, _ := bufio.NewReader(c).ReadString('\n')
				_, _ = io.WriteString(c, "250 "+line)
			}()
		}
	}()
	s.first = l.Addr().String()
	return s
}

func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, network+" "+address)
	s.mu.Unlock()
	var to string
	switch network + " " + address {
	case "tcp4 198.51.100.10:80", "tcp4 203.0.113.7:80":
		to = s.plain.Listener.Addr().String()
	case "tcp4 198.51.100.10:443":
		to = s.tls.Listener.Addr().String()
	case "tcp4 198.51.100.10:25":
		to = s.first
	default:
		return nil, errors.New("unreachable")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}

// zone is what names resolve to.
type zone map[string][]string

func (z zone) Exchange(_ context.Context, message []byte, _ int, _ bool) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(message); err != nil {
		return nil, err
	}
	q := m.Questions[0]
	list, ok := z[strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range list {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
	}
	return m.Pack()
}
func (zone) Hosts(string) ([]netip.Addr, bool) { return nil, false }
func (zone) Search() []string                  { return []string{"corp.test"} }

var testZone = zone{
	"example.test":      {"198.51.100.10"},
	"www.example.test":  {"198.51.100.10"},
	"evil.test":         {"198.51.100.10"}, // on the same machine
	"evilexample.test":  {"198.51.100.10"},
	"loop.example.test": {"127.0.0.1"},
	"lan.example.test":  {"10.1.2.3", "192.168.0.7", "169.254.169.254", "198.51.100.10"},
}

// guest is a machine on the network: another stack at the link's other end.
type guest struct {
	t     testing.TB
	stack *stack.Stack
	net   *Network
	site  *site
	// patience is how long connect waits; 10 s when 0.
	patience time.Duration
}

func newGuest(t *testing.T, policy Policy) *guest {
	t.Helper()
	s := newSite(t)
	g := newGuestOf(t, policy, s.dial)
	g.site = s
	return g
}

// newGuestOf is newGuest on another internet.
func newGuestOf(t testing.TB, policy Policy, dial func(ctx context.Context, network, address string) (net.Conn, error)) *guest {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	silence()
	n, err := start(&Network{policy: policy, resolver: testZone, dial: dial, toItself: true}, mac)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	g := &guest{t: t, net: n}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	ep, err := fdbased.New(&fdbased.Options{FDs: []int{int(n.Device().Fd())}, MTU: MTU, EthernetHeader: true, Address: tcpip.LinkAddress(mac)})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.stack.CreateNIC(1, ep); err != nil {
		t.Fatal(err)
	}
	// Before the link is cut, whose descriptor somebody else may get.
	t.Cleanup(func() {
		g.stack.RemoveNIC(1)
		ep.Wait()
		g.stack.Close()
	})
	if err := g.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: guestAddress, PrefixLen: 24}}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, Gateway: gatewayAddress, NIC: 1}})
	return g
}

func full(to string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(to)
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

func (g *guest) connect(to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(g.patience, 10*time.Second))
	defer cancel()
	var queue waiter.Queue
	endpoint, tcpErr := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if tcpErr != nil {
		return nil, stackError(tcpErr)
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	if tcpErr = endpoint.Connect(full(to)); tcpErr != nil {
		if _, ok := tcpErr.(*tcpip.ErrConnectStarted); !ok {
			return nil, stackError(tcpErr)
		}
		select {
		case <-ctx.Done():
			endpoint.Close()
			return nil, ctx.Err()
		case <-connected:
		}
		if tcpErr = endpoint.LastError(); tcpErr != nil {
			endpoint.Close()
			return nil, stackError(tcpErr)
		}
	}
	c := &guestConn{gonet.NewTCPConn(&queue, endpoint), endpoint}
	g.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c, nil
}

// ask asks the gateway for the addresses of a name.
func (g *guest) ask(name string) (addresses []string, code dnsmessage.RCode) {
	g.t.Helper()
	at := full(Gateway + ":53")
	c, err := gonet.DialUDP(g.stack, nil, &at, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	b, err := q.Pack()
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		g.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		g.t.Fatal(err)
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(buf[:n]); err != nil || reply.ID != 7 {
		g.t.Fatalf("reply %v, %v", reply, err)
	}
	for _, a := range reply.Answers {
		addresses = append(addresses, netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String())
	}
	return addresses, reply.RCode
}

// say connects, sends and returns all that comes back.
func (g *guest) say(to, text string) (string, error) {
	c, err := g.connect(to)
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// handshake makes a TLS connection that names a host.
func (g *guest) handshake(to, name string) (string, error) {
	c, err := g.connect(to)
	if err != nil {
		return "", err
	}
	s := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if _, err := io.WriteString(s, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(s)
	return string(b), err
}

func mustAllow(t *testing.T, list string) Policy {
	t.Helper()
	p, err := Allow(list, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStackDoesNotLog(t *testing.T) {
	newGuest(t, Policy{})
	if e := log.Log().Emitter; e != (discard{}) {
		t.Errorf("the stack logs to a %T", e)
	}
}

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
		{"a server that speaks first", func(g *guest) string {
			resolved(g)
			got, _ := g.say("198.51.100.10:25", "HELO me\r\n")
			if strings.Contains(got, "220") {
				return got
			}
			return ""
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

// datagram sends one and returns the answer; "" for none.
func (g *guest) datagram(to string) string {
	at := full(to)
	c, err := gonet.DialUDP(g.stack, nil, &at, ipv4.ProtocolNumber)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = c.Write([]byte("anybody there"))
	b := make([]byte, 100)
	n, _ := c.Read(b)
	return string(b[:n])
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

func TestLargeTransfersBothWays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	g := newGuestOf(t, NAT(false), func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	c, err := g.connect("198.51.100.99:7")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		_, _ = c.Write(data)
		_ = c.(*guestConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}
}
