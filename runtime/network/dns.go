package network

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/abdul-abdi/lumina/runtime/network/resolver"
	"github.com/abdul-abdi/lumina/runtime/pace"
)

const (
	dnsPort    = 53
	dnsTimeout = 10 * time.Second
	dnsTTL     = 30         // seconds, of what the host's own list says
	maxMessage = 64<<10 - 1 // bytes
	// maxStreams is how many connections to the resolver a guest has at once.
	maxStreams = 64
)

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
				if n.pause() {
					continue
				}
				return
			}
			select {
			case lookups <- struct{}{}:
			default:
				continue // the guest asks again
			}
			query := append([]byte(nil), buf[:k]...)
			go func() {
				defer func() { <-lookups }()
				if reply := n.answer(query, false); reply != nil {
					_, _ = datagrams.WriteTo(reply, from)
				}
			}()
		}
	}()
	go func() {
		open := make(chan struct{}, maxStreams)
		for {
			c, err := streams.Accept()
			if err != nil {
				if n.pause() {
					continue
				}
				return
			}
			select {
			case open <- struct{}{}:
			default:
				c.Close()
				continue
			}
			go func() {
				defer func() { <-open }()
				defer c.Close()
				defer context.AfterFunc(n.ctx, func() { c.Close() })()
				n.serveStream(c, lookups)
			}()
		}
	}()
	context.AfterFunc(n.ctx, func() {
		datagrams.Close()
		streams.Close()
	})
	return nil
}

// pause waits before a loop goes on after an error; false when the network is closed.
func (n *Network) pause() bool { return pace.Wait(n.ctx, 10*time.Millisecond) == nil }

// serveStream answers what comes over one connection, each query when it can be
// (RFC 7766, 6.2.1.1).
func (n *Network) serveStream(c net.Conn, lookups chan struct{}) {
	var writing sync.Mutex
	var all sync.WaitGroup
	defer all.Wait()
	for {
		_ = c.SetReadDeadline(time.Now().Add(dnsTimeout))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		select {
		case lookups <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		all.Go(func() {
			defer func() { <-lookups }()
			reply := n.answer(query, true)
			if reply == nil {
				return
			}
			writing.Lock()
			defer writing.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(dnsTimeout))
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
				c.Close()
			}
		})
	}
}

// answer makes the reply to a query; nil when it is none. What the host's resolver
// says is passed on as it is, but for addresses that the guest may not have.
func (n *Network) answer(message []byte, stream bool) []byte {
	if len(message) < resolver.HeaderSize || message[2]&flagResponse != 0 {
		return nil
	}
	q, code := parseQuery(message)
	if code != rcodeSuccess {
		return q.refusal(code)
	}
	name, ok := n.allowedQuestion(q.name)
	if !ok {
		n.counters.denied.Add(1)
		n.denied.add(Denied{Protocol: "dns", Destination: q.name, Name: q.name, Reason: "the name is not allowed"})
		return q.refusal(rcodeRefused)
	}
	reply := n.fromHosts(q, name)
	if reply == nil {
		ctx, cancel := context.WithTimeout(n.ctx, dnsTimeout)
		defer cancel()
		var err error
		if reply, err = n.resolver.Exchange(ctx, message, q.end, stream); err != nil {
			return q.refusal(rcodeServerFailure)
		}
		if reply = n.screen(reply, name); reply == nil {
			return q.refusal(rcodeServerFailure) // what cannot be read is not passed on
		}
	}
	if limit := q.room(); !stream && len(reply) > limit {
		reply = q.refusal(rcodeSuccess)
		reply[2] |= flagTruncated // the guest asks again by TCP
	}
	return reply
}

// allowedQuestion says whether a name may be asked for, and as which name the policy
// knows it. Others are not: a question can carry data out. A name without a dot that
// is on the list is looked for in the host's domains.
func (n *Network) allowedQuestion(name string) (string, bool) {
	if n.policy.allowsName(name, 0) {
		return name, true
	}
	label, domain, _ := strings.Cut(name, ".")
	for _, search := range n.resolver.Search() {
		if domain == search && n.policy.allowsName(label, 0) {
			return label, true
		}
	}
	return "", false
}

// fromHosts answers from the host's own list of names; nil for one that is not on it.
func (n *Network) fromHosts(q *query, name string) []byte {
	if q.class != classINET || q.kind != typeA && q.kind != typeAAAA {
		return nil
	}
	addresses, ok := n.resolver.Hosts(q.name)
	if !ok {
		return nil
	}
	reply := q.refusal(rcodeSuccess)
	tail := reply[q.end:] // what the guest is told of EDNS
	records, count := []byte(nil), 0
	for _, a := range addresses {
		if a.Is4() != (q.kind == typeA) {
			continue
		}
		if reason := n.refusesAnswer(a); reason != "" {
			n.deny("dns", netip.AddrPortFrom(a, 0), name, reason)
			continue
		}
		if a.Is4() {
			n.names.add(a, name)
		}
		records = append(records, 0xc0, resolver.HeaderSize) // the question's name
		records = binary.BigEndian.AppendUint16(records, q.kind)
		records = binary.BigEndian.AppendUint16(records, classINET)
		records = binary.BigEndian.AppendUint32(records, dnsTTL)
		records = binary.BigEndian.AppendUint16(records, uint16(a.BitLen()/8))
		records = append(records, a.AsSlice()...)
		count++
	}
	binary.BigEndian.PutUint16(reply[6:], uint16(count))
	return append(append(reply[:q.end:q.end], records...), tail...)
}

// screen takes addresses that the guest may not have from a reply, a public name with
// a private address being a way to the inside, and remembers the others. It returns
// nil for a reply that cannot be read.
func (n *Network) screen(reply []byte, name string) []byte {
	records, ok := parseRecords(reply)
	if !ok {
		return nil
	}
	var kept []record
	for _, r := range records {
		refused := false
		for _, a := range r.addresses(reply) {
			if reason := n.refusesAnswer(a); reason != "" {
				n.deny("dns", netip.AddrPortFrom(a, 0), name, reason)
				refused = true
			} else if a.Is4() && r.section == sectionAnswer {
				n.names.add(a, name)
			}
		}
		if !refused {
			kept = append(kept, r)
		}
	}
	if len(kept) == len(records) {
		return reply
	}
	return rewrite(reply, kept)
}

// refusesAnswer is refuses for an address in an answer: of IPv6, which a guest does
// not have, those are passed on that are somewhere outside.
func (n *Network) refusesAnswer(a netip.Addr) string {
	if a = a.Unmap(); a.Is4() {
		return n.refuses(a)
	}
	switch {
	case a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsMulticast(), a.IsUnspecified():
		return "the address is the host's own, link-local or not of one machine"
	case a.IsPrivate() && !n.policy.lan:
		return "the address is private"
	}
	return ""
}
