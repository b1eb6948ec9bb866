//go:build linux

package network

import (
	"bufio"
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

	"github.com/abdul-abdi/lumina/runtime/accept"
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
	s.first = listen(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.WriteString(c, "220 hello\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "250 "+line)
	})
	return s
}

// listen is a TCP server that does one thing with each connection, and closes it; it
// returns its address.
func listen(t testing.TB, do func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go accept.Each(l, func(c net.Conn) { do(c.(*net.TCPConn)) })
	return l.Addr().String()
}

func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, network+" "+address)
	s.mu.Unlock()
	var to string
	switch network + " " + address {
	case "tcp4 198.51.100.10:80", "tcp4 203.0.113.7:80":
		to = s.plain.Listener.Addr().String()
	case "tcp4 198.51.100.10:443", "tcp4 198.51.100.10:8443":
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
