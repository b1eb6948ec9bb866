package network

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

const (
	dnsPort     = 53
	dnsTimeout  = 10 * time.Second
	dnsTTL      = 30        // seconds
	maxAnswers  = 32        // addresses of one name
	maxMessage  = 4 << 10   // bytes
	nameMemory  = time.Hour // how long after its resolution a name opens an address
	maxNames    = 8192      // addresses that are remembered
	maxPerEntry = 16        // names of one address
)

// resolver is what the guest's questions are answered by: [net.Resolver].
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// serveDNS answers at the gateway.
func (n *Network) serveDNS() error {
	at := tcpip.FullAddress{NIC: nic, Addr: gatewayAddress, Port: dnsPort}
	datagrams, err := gonet.DialUDP(n.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	streams, err := gonet.ListenTCP(n.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	lookups := make(chan struct{}, n.lookups)
	go func() {
		buf := make([]byte, maxMessage)
		for {
			k, from, err := datagrams.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case lookups <- struct{}{}:
			default:
				continue // the guest asks again
			}
			question := append([]byte(nil), buf[:k]...)
			go func() {
				defer func() { <-lookups }()
				if reply := n.answer(question, 1232); reply != nil {
					_, _ = datagrams.WriteTo(reply, from)
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			select {
			case lookups <- struct{}{}:
			default:
				c.Close()
				continue
			}
			go func() {
				defer func() { <-lookups }()
				defer c.Close()
				n.serveStream(c)
			}()
		}
	}()
	context.AfterFunc(n.ctx, func() {
		datagrams.Close()
		streams.Close()
	})
	return nil
}

func (n *Network) serveStream(c net.Conn) {
	for {
		_ = c.SetDeadline(time.Now().Add(dnsTimeout))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, min(int(binary.BigEndian.Uint16(size[:])), maxMessage))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		reply := n.answer(question, maxMessage)
		if reply == nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(dnsTimeout))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// answer makes the reply to a question (RFC 1035); nil when it is none.
func (n *Network) answer(question []byte, limit int) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil || header.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, dnsTimeout)
	defer cancel()
	code := dnsmessage.RCodeNotImplemented
	var records []dnsmessage.Resource
	if header.OpCode == 0 && q.Class == dnsmessage.ClassINET {
		records, code = n.resolve(ctx, q)
	}
	reply := pack(header, q, records, code, false)
	if len(reply) > limit {
		reply = pack(header, q, nil, code, true) // the guest asks again by TCP
	}
	return reply
}

func pack(asked dnsmessage.Header, q dnsmessage.Question, records []dnsmessage.Resource, code dnsmessage.RCode, truncated bool) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: asked.ID, Response: true, OpCode: asked.OpCode, RecursionDesired: asked.RecursionDesired,
			RecursionAvailable: true, RCode: code, Truncated: truncated},
		Questions: []dnsmessage.Question{q},
		Answers:   records,
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// resolve asks the host's resolver. Names that the policy does not know are not
// asked for: a question can carry data out.
func (n *Network) resolve(ctx context.Context, q dnsmessage.Question) ([]dnsmessage.Resource, dnsmessage.RCode) {
	name := canonicalName(q.Name.String())
	if !n.policy.allowsName(name, 0) {
		n.counters.denied.Add(1)
		n.denied.add(Denied{Protocol: "dns", Destination: name, Name: name, Reason: "the name is not allowed"})
		return nil, dnsmessage.RCodeRefused
	}
	bodies, err := n.lookup(ctx, q.Type, name)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return nil, dnsmessage.RCodeNameError
		}
		return nil, dnsmessage.RCodeServerFailure
	}
	var records []dnsmessage.Resource
	for _, b := range bodies[:min(len(bodies), maxAnswers)] {
		records = append(records, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: dnsTTL}, Body: b})
	}
	return records, dnsmessage.RCodeSuccess
}

func (n *Network) lookup(ctx context.Context, t dnsmessage.Type, name string) ([]dnsmessage.ResourceBody, error) {
	var bodies []dnsmessage.ResourceBody
	switch t {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		all, err := n.resolver.LookupNetIP(ctx, "ip4", name+".")
		if err != nil {
			return nil, err
		}
		if t == dnsmessage.TypeAAAA {
			return nil, nil // the name is there; the guest has no IPv6
		}
		for _, a := range all[:min(len(all), maxAnswers)] {
			a = a.Unmap()
			// A public name with a private address is a way to the inside.
			if reason := n.refuses(a); reason != "" {
				n.deny("dns", netip.AddrPortFrom(a, 0), name, reason)
				continue
			}
			n.names.add(a, name)
			bodies = append(bodies, &dnsmessage.AResource{A: a.As4()})
		}
	case dnsmessage.TypeTXT:
		texts, err := n.resolver.LookupTXT(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, s := range texts {
			var parts []string
			for len(s) > 255 {
				parts, s = append(parts, s[:255]), s[255:]
			}
			bodies = append(bodies, &dnsmessage.TXTResource{TXT: append(parts, s)})
		}
	case dnsmessage.TypeMX:
		all, err := n.resolver.LookupMX(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, mx := range all {
			if host, err := dnsmessage.NewName(mx.Host); err == nil {
				bodies = append(bodies, &dnsmessage.MXResource{Pref: mx.Pref, MX: host})
			}
		}
	case dnsmessage.TypeSRV:
		_, all, err := n.resolver.LookupSRV(ctx, "", "", name)
		if err != nil {
			return nil, err
		}
		for _, srv := range all {
			if host, err := dnsmessage.NewName(srv.Target); err == nil {
				bodies = append(bodies, &dnsmessage.SRVResource{Priority: srv.Priority, Weight: srv.Weight, Port: srv.Port, Target: host})
			}
		}
	}
	return bodies, nil
}

// names remembers which names the guest resolved to an address.
type names struct {
	mu    sync.Mutex
	table map[netip.Addr][]resolved
}

type resolved struct {
	name string
	at   time.Time
}

func (t *names) add(a netip.Addr, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.table == nil {
		t.table = map[netip.Addr][]resolved{}
	}
	if _, ok := t.table[a]; !ok && len(t.table) >= maxNames {
		for old := range t.table {
			delete(t.table, old) // any: a guest with that many is up to something
			break
		}
	}
	list := slices.DeleteFunc(t.table[a], func(r resolved) bool { return r.name == name || now.Sub(r.at) > nameMemory })
	if len(list) >= maxPerEntry {
		list = list[1:]
	}
	t.table[a] = append(list, resolved{name, now})
}

// allowed says whether a name that the policy allows was resolved to an address.
func (t *names) allowed(p *Policy, to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.table[to.Addr()], func(r resolved) bool {
		return time.Since(r.at) <= nameMemory && p.allowsName(r.name, to.Port())
	})
}

// opens is allowed for what the port alone allows.
func (t *names) opens(p *Policy, to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.table[to.Addr()], func(r resolved) bool {
		return time.Since(r.at) <= nameMemory && p.opens(r.name, to.Port())
	})
}

// one is a name that was resolved to an address; "" when there is none.
func (t *names) one(a netip.Addr) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if list := t.table[a]; len(list) > 0 {
		return list[len(list)-1].name
	}
	return ""
}
