package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// trouble is why a destination could not be reached, as the guest learns it.
type trouble int

const (
	reset     trouble = iota // somebody is there and refuses, or nothing better is known
	noAnswer                 // no answer, or this host lacks a resource: the guest tries again
	noNetwork                // the rest are ICMP's words
	noHost
	noPort
	prohibited
)

var unreachableCodes = map[trouble]header.ICMPv4Code{
	noNetwork:  header.ICMPv4NetUnreachable,
	noHost:     header.ICMPv4HostUnreachable,
	noPort:     header.ICMPv4PortUnreachable,
	prohibited: header.ICMPv4AdminProhibited,
}

// troubleOf tells what an error of the host's sockets means.
func troubleOf(err error) trouble {
	is := func(list ...syscall.Errno) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.EHOSTUNREACH, syscall.EHOSTDOWN):
		return noHost
	case is(syscall.ENETUNREACH, syscall.ENETDOWN):
		return noNetwork
	case is(syscall.EACCES, syscall.EPERM):
		return prohibited
	case is(syscall.ETIMEDOUT, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EADDRNOTAVAIL),
		errors.Is(err, context.DeadlineExceeded):
		return noAnswer
	}
	return reset
}

// troubleOfDatagrams is troubleOf for a socket of datagrams; ok when the socket
// goes on.
func troubleOfDatagrams(err error) (t trouble, ok bool) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return noPort, true
	}
	t = troubleOf(err)
	return t, t != reset && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.DeadlineExceeded)
}

// unreachable tells the guest by ICMP (RFC 792) that what it sent has not reached its
// destination. sequence is that of the segment, for TCP.
func (n *Network) unreachable(protocol tcpip.TransportProtocolNumber, id stack.TransportEndpointID, sequence uint32, t trouble) {
	code, ok := unreachableCodes[t]
	if !ok {
		return
	}
	const (
		quoted = header.IPv4MinimumSize + 8 // of what the guest sent
		icmpAt = header.EthernetMinimumSize + header.IPv4MinimumSize
		size   = icmpAt + header.ICMPv4MinimumSize + quoted
	)
	var frame [size]byte
	header.Ethernet(frame[:]).Encode(&header.EthernetFields{SrcAddr: n.link.mac, DstAddr: n.guestMAC, Type: header.IPv4ProtocolNumber})
	packet := func(at int, length uint16, protocol tcpip.TransportProtocolNumber, from, to tcpip.Address) {
		h := header.IPv4(frame[at:])
		h.Encode(&header.IPv4Fields{TotalLength: length, TTL: 64, Protocol: uint8(protocol), SrcAddr: from, DstAddr: to})
		h.SetChecksum(^h.CalculateChecksum())
	}
	packet(header.EthernetMinimumSize, size-header.EthernetMinimumSize, header.ICMPv4ProtocolNumber, gatewayAddress, guestAddress)
	inner := icmpAt + header.ICMPv4MinimumSize
	packet(inner, quoted, protocol, id.RemoteAddress, id.LocalAddress)
	transport := frame[inner+header.IPv4MinimumSize:]
	binary.BigEndian.PutUint16(transport, id.RemotePort)
	binary.BigEndian.PutUint16(transport[2:], id.LocalPort)
	binary.BigEndian.PutUint32(transport[4:], sequence)
	h := header.ICMPv4(frame[icmpAt:])
	h.SetType(header.ICMPv4DstUnreachable)
	h.SetCode(code)
	h.SetChecksum(^checksum.Checksum(h, 0))
	_ = n.link.acks.send(frame[:])
}

// syns remembers the sequence numbers of connections that are being made, for
// the guest to know what could not be reached.
type syns struct {
	mu    sync.Mutex
	table map[stack.TransportEndpointID]uint32
}

// maxSyns bounds what is remembered: more than there can be attempts.
const maxSyns = 2 * maxInFlight

// note remembers a segment if it begins a connection.
func (s *syns) note(id stack.TransportEndpointID, segment header.TCP) {
	if len(segment) < header.TCPMinimumSize || segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table == nil {
		s.table = map[stack.TransportEndpointID]uint32{}
	}
	if len(s.table) >= maxSyns {
		for old := range s.table {
			delete(s.table, old) // the guest gets a reset for it
			break
		}
	}
	s.table[id] = segment.SequenceNumber()
}

// take forgets and returns one.
func (s *syns) take(id stack.TransportEndpointID) (sequence uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sequence, ok = s.table[id]
	delete(s.table, id)
	return sequence, ok
}
