//go:build linux

package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/abdul-abdi/lumina/runtime/network/resolver"
)

const exampleZone = `$TTL 300
@ SOA ns.example.test. host.example.test. 1 3600 600 86400 300
@ NS ns.example.test.
@ NS ns2.example.test.
@ A 198.51.100.10
@ AAAA 2001:db8::10
ns A 198.51.100.53
ns2 A 198.51.100.54
mail A 198.51.100.25
@ MX 10 mail.example.test.
@ CAA 0 issue "ca.example.test"
@ DNSKEY 257 3 8 AwEAAagAIKlVZrpC6Ia7gEzahOR+9W29euxhJhVVLOyQbSEW0O8gcCjFFVQUTf6v58fLjwBd0YI0EzrAcQqBGCzh/RStIoO8g0NfnfL2MTJRkxoXbfDaUeVPQuYEhg37NZWAJQ9VnMVDxP/VHL496M/QZxkjf5/Efucp2gaDX6RS6CXpoY68LsvPVjR0ZSwzz1apAzvN9dlzEheX7ICJBBtuA6G3LQpzW5hOA2hzCTMjJPJ8LbqF6dsV6DoBQzgul0sGIcGOYl7OyQdXfZ57relSQageu+ipAdTTJ25AsRTAoub8ONGcLmqrAmRLKBP1dfwhYB4N7knNnulqQxA+Uk1ihz0=
@ HTTPS 1 . alpn=h2 ipv4hint=198.51.100.10
_x SVCB 1 svc.example.test. port=53
_sip._tcp SRV 1 2 5060 sip.example.test.
@ NAPTR 1 1 "u" "sip" "!^.*$!sip:a@b!" .
@ SSHFP 1 1 123456789abcdef67890123456789abcdef67890
@ TYPE65400 \# 4 01020304
@ LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
c1 CNAME c2
c2 CNAME c3.sub.example.test.
c3.sub CNAME www
www A 198.51.100.11
six AAAA 2001:db8::6
mixed A 198.51.100.12
mixed A 10.1.2.3
mixed A 127.0.0.1
mixed AAAA ::1
mixed AAAA 2001:db8::7
inside A 10.9.9.9
hint HTTPS 1 . ipv4hint=10.9.9.9
long TXT %s
`

// startNamed is BIND with some zones, and the host's configuration that names it.
func startNamed(t *testing.T) (*resolver.Resolver, string) {
	t.Helper()
	dir := openDir(t)
	address := freePort(t)
	_, port, _ := net.SplitHostPort(address)
	var long strings.Builder
	for i := range 25 { // 6 KB
		fmt.Fprintf(&long, `"%s" `, strings.Repeat(string(rune('a'+i)), 250))
	}
	for name, text := range map[string]string{
		"example": fmt.Sprintf(exampleZone, long.String()),
		"corp":    "$TTL 300\n@ SOA ns.corp.test. h.corp.test. 1 1 1 1 1\n@ NS ns.corp.test.\nns A 198.51.100.53\nwiki A 198.51.100.20\n",
		"reverse": "$TTL 300\n@ SOA ns.corp.test. h.corp.test. 1 1 1 1 1\n@ NS ns.corp.test.\n10 PTR example.test.\n",
		"hosts":   "127.0.0.1 localhost\n198.51.100.30 Host.test alias.test # x\n10.0.0.1 mixedhost.test\n198.51.100.31 mixedhost.test\n2001:db8::1 host.test\n",
		"resolv":  "nameserver 127.0.0.1\nsearch corp.test bad$domain\n",
		"named.conf": fmt.Sprintf(`options { directory "%[1]s"; listen-on port %[2]s { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no;
pid-file none; session-keyfile none; lock-file none; minimal-responses no; rrset-order { order none; }; allow-transfer { any; }; };
controls { };
logging { category default { null; }; };
zone "example.test" { type primary; file "example"; };
zone "corp.test" { type primary; file "corp"; };
zone "100.51.198.in-addr.arpa" { type primary; file "reverse"; };
zone "broken.test" { type primary; file "missing"; };
`, dir, port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	startServer(t, address, "/usr/sbin/named", "-f", "-4", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	at := netip.MustParseAddrPort(address)
	return resolver.With(filepath.Join(dir, "resolv"), filepath.Join(dir, "hosts"), at.Port()), address
}

// question makes a query; size is that of EDNS, 0 for none.
func question(name string, kind dnsmessage.Type, size int) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 0x1234, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	if size > 0 {
		m.Additionals = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: dnsmessage.Class(size), TTL: 0x8000},
			Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 3}}}}} // and which server it is
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// exchangeOver sends a message over a connection of datagrams or a stream, and
// returns the reply.
func exchangeOver(t testing.TB, c net.Conn, message []byte, stream bool) []byte {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(12 * time.Second))
	buf := make([]byte, 64<<10)
	if !stream {
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		t.Fatal(err)
	}
	reply := buf[2 : 2+binary.BigEndian.Uint16(buf)]
	if _, err := io.ReadFull(c, reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

// query asks the gateway.
func (g *guest) query(message []byte, stream bool) []byte {
	g.t.Helper()
	at := full(Gateway + ":53")
	var c net.Conn
	var err error
	if stream {
		c, err = gonet.DialTCP(g.stack, at, ipv4.ProtocolNumber)
	} else {
		c, err = gonet.DialUDP(g.stack, nil, &at, ipv4.ProtocolNumber)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return exchangeOver(g.t, c, message, stream)
}

func newGuestOfResolver(t *testing.T, policy Policy, r Resolver) *guest {
	g := newGuestOf(t, policy, func(context.Context, string, string) (net.Conn, error) { return nil, os.ErrNotExist })
	g.net.resolver = r
	return g
}

// Whatever a real server answers, the guest gets the same bytes.
func TestDNSIsPassedOn(t *testing.T) {
	r, address := startNamed(t)
	g := newGuestOfResolver(t, NAT(false), r)
	for _, tt := range []struct {
		name string
		kind dnsmessage.Type
	}{
		{"example.test.", dnsmessage.TypeA}, {"eXaMpLe.TeSt.", dnsmessage.TypeA}, {"example.test.", dnsmessage.TypeAAAA}, {"example.test.", dnsmessage.TypeNS},
		{"example.test.", dnsmessage.TypeSOA}, {"example.test.", dnsmessage.TypeMX}, {"example.test.", 257}, {"example.test.", 48}, {"example.test.", 65},
		{"_x.example.test.", 64}, {"_sip._tcp.example.test.", dnsmessage.TypeSRV}, {"example.test.", 35}, {"example.test.", 44}, {"example.test.", 65400}, {"example.test.", 29},
		{"example.test.", dnsmessage.TypeTXT}, {"c1.example.test.", dnsmessage.TypeA}, {"c1.example.test.", dnsmessage.TypeCNAME}, {"six.example.test.", dnsmessage.TypeA},
		{"none.example.test.", dnsmessage.TypeA}, {"long.example.test.", dnsmessage.TypeTXT}, {"10.100.51.198.in-addr.arpa.", dnsmessage.TypePTR},
		{"11.100.51.198.in-addr.arpa.", dnsmessage.TypePTR}, {"elsewhere.org.", dnsmessage.TypeA}, {"broken.test.", dnsmessage.TypeA}, {"wiki.", dnsmessage.TypeA}, {"example.test.", dnsmessage.TypeALL},
	} {
		for _, size := range []int{0, 1232, 4096} {
			for _, stream := range []bool{false, true} {
				message := question(tt.name, tt.kind, size)
				network := "udp"
				if stream {
					network = "tcp"
				}
				c, err := net.Dial(network, address)
				if err != nil {
					t.Fatal(err)
				}
				want := exchangeOver(t, c, message, stream)
				got := g.query(message, stream)
				if !bytes.Equal(got, want) {
					t.Errorf("%s %v, EDNS %d, %s:\n%x, want\n%x", tt.name, tt.kind, size, network, got, want)
				}
			}
		}
	}
	if reply := g.query(question("long.example.test.", dnsmessage.TypeTXT, 0), false); reply[2]&flagTruncated == 0 {
		t.Errorf("6 KB in a datagram: %x", reply)
	}
	if reply := g.query(question("long.example.test.", dnsmessage.TypeTXT, 0), true); len(reply) < 6000 {
		t.Errorf("6 KB by TCP: %d bytes", len(reply))
	}
}

// What is wrong with a query is said as resolvers say it.
func TestDNSRefusals(t *testing.T) {
	r, _ := startNamed(t)
	g := newGuestOfResolver(t, NAT(false), r)
	good := question("example.test.", dnsmessage.TypeA, 1232)
	change := func(do func(b []byte) []byte) []byte { return do(slices.Clone(good)) }
	for _, tt := range []struct {
		name    string
		message []byte
		code    byte
	}{
		{"an update", change(func(b []byte) []byte { b[2] |= 5 << 3; return b }), rcodeNotImplemented},
		{"a notification", change(func(b []byte) []byte { b[2] |= 4 << 3; return b }), rcodeNotImplemented},
		{"no question", change(func(b []byte) []byte { b[5] = 0; return b[:12] }), rcodeFormat},
		{"two questions", change(func(b []byte) []byte { b[5] = 2; return b }), rcodeFormat},
		{"an answer", change(func(b []byte) []byte { b[7] = 1; return b }), rcodeFormat},
		{"cut off", change(func(b []byte) []byte { return b[:20] }), rcodeFormat},
		{"a pointer", change(func(b []byte) []byte { return append(b[:12:12], 0xc0, 0, 0, 1, 0, 1) }), rcodeFormat},
		{"a zone", question("example.test.", dnsmessage.TypeAXFR, 0), rcodeRefused},
	} {
		for _, stream := range []bool{false, true} {
			reply := g.query(tt.message, stream)
			if len(reply) < 12 || reply[0] != 0x12 || reply[1] != 0x34 || reply[2]&flagResponse == 0 || reply[3]&0xf != tt.code {
				t.Errorf("%s: %x, want code %d", tt.name, reply, tt.code)
			}
		}
	}
	// Many over one connection, without waiting.
	c, err := gonet.DialTCP(g.stack, full(Gateway+":53"), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	seen := map[uint16]bool{}
	for i := range 50 {
		binary.BigEndian.PutUint16(good, uint16(i))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(good))), good...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		b := make([]byte, 2)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		b = make([]byte, binary.BigEndian.Uint16(b))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		seen[binary.BigEndian.Uint16(b)] = b[3]&0xf == 0
	}
	if len(seen) != 50 {
		t.Errorf("%d of 50 were answered", len(seen))
	}
}

// The rules see what the guest sees: private addresses are taken out, whatever else
// is in the reply, and only what is left opens anything.
func TestDNSAndTheRules(t *testing.T) {
	r, _ := startNamed(t)
	answers := func(g *guest, name string, kind dnsmessage.Type) (list []string, code dnsmessage.RCode) {
		var m dnsmessage.Message
		if err := m.Unpack(g.query(question(name, kind, 1232), false)); err != nil {
			t.Fatal(err)
		}
		for _, a := range m.Answers {
			switch b := a.Body.(type) {
			case *dnsmessage.AResource:
				list = append(list, netip.AddrFrom4(b.A).String())
			case *dnsmessage.AAAAResource:
				list = append(list, netip.AddrFrom16(b.AAAA).String())
			case *dnsmessage.CNAMEResource:
				list = append(list, b.CNAME.String())
			default:
				list = append(list, a.Header.Type.String())
			}
		}
		if len(m.Additionals) == 0 || m.Additionals[len(m.Additionals)-1].Header.Type != dnsmessage.TypeOPT {
			t.Errorf("%s %v: no EDNS in %v", name, kind, m.Additionals)
		}
		slices.Sort(list)
		return list, m.RCode
	}
	g := newGuestOfResolver(t, mustAllow(t, "*.example.test,wiki,example.test:22,host.test,mixedhost.test"), r)
	for _, tt := range []struct {
		name string
		kind dnsmessage.Type
		want string
		code dnsmessage.RCode
	}{
		{"mixed.example.test.", dnsmessage.TypeA, "198.51.100.12", 0},
		{"mixed.example.test.", dnsmessage.TypeAAAA, "2001:db8::7", 0},
		{"inside.example.test.", dnsmessage.TypeA, "", 0},
		{"hint.example.test.", 65, "", 0},
		{"c1.example.test.", dnsmessage.TypeA, "198.51.100.11 c2.example.test. c3.sub.example.test. www.example.test.", 0},
		{"six.example.test.", dnsmessage.TypeA, "", 0},
		{"none.example.test.", dnsmessage.TypeA, "", dnsmessage.RCodeNameError},
		{"wiki.corp.test.", dnsmessage.TypeA, "198.51.100.20", 0},
		{"other.corp.test.", dnsmessage.TypeA, "", dnsmessage.RCodeRefused},
		{"corp.test.", dnsmessage.TypeA, "", dnsmessage.RCodeRefused},
		{"elsewhere.org.", dnsmessage.TypeTXT, "", dnsmessage.RCodeRefused},
		{"10.100.51.198.in-addr.arpa.", dnsmessage.TypePTR, "", dnsmessage.RCodeRefused},
		{"HOST.test.", dnsmessage.TypeA, "198.51.100.30", 0},
		{"host.test.", dnsmessage.TypeAAAA, "2001:db8::1", 0},
		{"mixedhost.test.", dnsmessage.TypeA, "198.51.100.31", 0},
		{"mixedhost.test.", dnsmessage.TypeAAAA, "", 0},
	} {
		if got, code := answers(g, tt.name, tt.kind); strings.Join(got, " ") != tt.want || code != tt.code {
			t.Errorf("%s %v: %v, %v, want %s, %v", tt.name, tt.kind, got, code, tt.want, tt.code)
		}
	}
	if _, code := answers(g, "example.test.", dnsmessage.TypeA); code != 0 {
		t.Errorf("a name that is allowed on one port: %v", code)
	}
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, tt := range []struct {
		protocol, to string
		way          way
		ok           bool
	}{
		{"tcp", "198.51.100.12:80", byName, true},
		{"tcp", "198.51.100.11:443", byName, true},
		{"tcp", "198.51.100.20:80", byName, true},
		{"tcp", "198.51.100.10:22", byAddress, true},
		{"udp", "198.51.100.10:22", byAddress, true},
		{"tcp", "198.51.100.10:80", 0, false},
		{"udp", "198.51.100.12:443", 0, false},
		{"tcp", "10.1.2.3:80", 0, false},
		{"tcp", "198.51.100.13:80", 0, false},
	} {
		if way, ok := g.net.admits(tt.protocol, at(tt.to)); way != tt.way || ok != tt.ok {
			t.Errorf("%s %s: %v, %v, want %v, %v", tt.protocol, tt.to, way, ok, tt.way, tt.ok)
		}
	}
	if !slices.Equal(g.net.Search(), []string{"corp.test"}) {
		t.Errorf("the guest looks in %q", g.net.Search())
	}
}
