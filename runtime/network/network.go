// Package network is a network of one guest, in user space: a TCP/IP stack that
// takes the guest's connections and makes them anew from the host, as far as a
// [Policy] lets it. It needs no rights and knows no driver: frames come and go
// over a socket.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/abdul-abdi/lumina/runtime/network/resolver"
	"github.com/abdul-abdi/lumina/runtime/rawconn"
)

// What the guest's interface has.
const (
	// Address is the guest's, with the length of its network's prefix.
	Address = "10.0.2.15/24"
	// Gateway is the only other machine in it; it resolves names, too.
	Gateway = "10.0.2.2"
	// MTU is in bytes. Long frames cost an emulated guest least.
	MTU = 65520
)

var (
	gateway        = netip.MustParseAddr(Gateway)
	gatewayAddress = tcpip.AddrFrom4(gateway.As4())
	guestNetwork   = netip.MustParsePrefix(Address)
	guestAddress   = tcpip.AddrFrom4(guestNetwork.Addr().As4())
	gatewayMAC     = tcpip.LinkAddress("\x02lumin")
)

const nic tcpip.NICID = 1

// Resolver is what the guest's questions are answered by: the host's, of package
// resolver.
type Resolver interface {
	// Exchange passes on a query, whose question ends at questionEnd.
	Exchange(ctx context.Context, query []byte, questionEnd int, stream bool) (reply []byte, err error)
	// Hosts is what the host's own list says of a name.
	Hosts(name string) ([]netip.Addr, bool)
	// Search is the domains in which the host looks for names without a dot.
	Search() []string
}

// Network is the network of a guest.
type Network struct {
	policy    Policy
	resolver  Resolver
	stack     *stack.Stack
	link      *link
	device    *os.File
	ctx       context.Context
	cancel    context.CancelFunc
	counters  counters
	denied    deniedLog
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	announced bool
	toItself  bool // tests reach servers of their own process
	host      hostAddresses
	names     names
	flows     flows
	lookups   int // questions at once
	syns      syns
	joined    joined
	guestMAC  tcpip.LinkAddress
}

// silence ends the log of the stack, which goes to standard error and which a
// guest can fill: with odd fragments, for one.
var silence = sync.OnceFunc(func() { log.SetTarget(discard{}) })

type discard struct{}

func (discard) Emit(int, log.Level, time.Time, string, ...any) {}

// dial makes the guest's connections. Whether one that is idle still stands is the
// guest's to ask.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	if network == "tcp4" {
		conn, err := rawconn.DialTCP(ctx, to)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	socket, err := net.DialUDP(network, nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	conn, err := rawconn.New(socket)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return conn, nil
}

// Options are those of a network.
type Options struct {
	// AllowLAN lets the guest reach private addresses, too.
	AllowLAN bool
	// Announced has Go's scheduler told of every call on the network's sockets, see
	// package rawconn.
	Announced bool
}

// New makes a network for the guest with this MAC address.
func New(policy Policy, mac net.HardwareAddr, o Options) (*Network, error) {
	silence()
	n := &Network{policy: policy, resolver: resolver.New(), dial: dial, announced: o.Announced}
	if o.Announced {
		n.dial = dialAnnounced
	}
	return start(n, mac)
}

// dialAnnounced is dial, with every call on the connection announced.
func dialAnnounced(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := dial(ctx, network, address)
	if raw, ok := c.(*rawconn.Conn); ok {
		raw.Announce()
	}
	return c, err
}

// start makes n the network for the guest with this MAC address.
func start(n *Network, mac net.HardwareAddr) (*Network, error) {
	n.guestMAC = tcpip.LinkAddress(mac)
	n.flows.most, n.flows.mostOfHost, n.lookups = limits(descriptors())
	n.ctx, n.cancel = context.WithCancel(context.Background())
	var err error
	if n.link, n.device, err = newLink(&n.counters, n.announced); err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := n.configure(mac); err != nil {
		n.Close()
		return nil, fmt.Errorf("making the network: %w", err)
	}
	return n, nil
}

func (n *Network) configure(mac net.HardwareAddr) error {
	s := n.stack
	subnet, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{10, 0, 2, 0}), tcpip.MaskFrom("\xff\xff\xff\x00"))
	if err != nil {
		return err
	}
	s.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: nic}})
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, n.tcpHandler())
	s.SetTransportProtocolHandler(udp.ProtocolNumber, n.udpHandler())
	// The link loses and reorders nothing: no late segment is to be waited for,
	// while the guest may use a port again at once.
	timeWait := tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	sack := tcpip.TCPSACKEnabled(true)
	window := tcpip.TCPModerateReceiveBufferOption(true)
	sendBuffer := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: 4 << 20}
	receiveBuffer := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: 4 << 20}
	for _, e := range []tcpip.Error{
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &timeWait),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &window),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sendBuffer),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &receiveBuffer),
		s.CreateNIC(nic, n.link),
		s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          header.IPv4ProtocolNumber,
			AddressWithPrefix: gatewayAddress.WithPrefix(),
		}, stack.AddressProperties{}),
		// Whomever the guest calls, the stack answers.
		s.SetSpoofing(nic, true),
		s.SetPromiscuousMode(nic, true),
		s.AddStaticNeighbor(nic, ipv4.ProtocolNumber, guestAddress, tcpip.LinkAddress(mac)),
	} {
		if e != nil {
			return stackError(e)
		}
	}
	return errors.Join(n.serveDNS(), n.serveDHCP())
}

func stackError(e tcpip.Error) error { return errors.New(e.String()) }

// Search is the domains in which the guest is to look for names without a dot.
func (n *Network) Search() []string { return n.resolver.Search() }

// Device is the driver's end of the link: a socket that carries one Ethernet
// frame a datagram. It stays open until Close.
func (n *Network) Device() *os.File { return n.device }

// Close ends the network and its connections: those on which the guest had not sent
// all are reset.
func (n *Network) Close() error {
	n.cancel()
	err := errors.Join(n.link.conn.Close(), n.device.Close())
	n.joined.end()
	n.stack.Close()
	return err
}

// Denied lists what the guest tried in vain, and how many further attempts are
// not listed.
func (n *Network) Denied() (list []Denied, more int64) {
	n.denied.mu.Lock()
	defer n.denied.mu.Unlock()
	return append(list, n.denied.list...), n.denied.more
}

// Metrics counts the guest's traffic.
func (n *Network) Metrics() Metrics {
	c := &n.counters
	return Metrics{
		ReceivedBytes: c.rxBytes.Load(), ReceivedPackets: c.rxPackets.Load(),
		SentBytes: c.txBytes.Load(), SentPackets: c.txPackets.Load(),
		Connections: c.connections.Load(), Denied: c.denied.Load(),
	}
}

func (n *Network) deny(protocol string, to netip.AddrPort, name, reason string) {
	n.counters.denied.Add(1)
	n.denied.add(Denied{Protocol: protocol, Destination: to.String(), Name: name, Reason: reason})
}

// way is how a destination came to be allowed.
type way int

const (
	byAddress way = iota // whatever is said
	byName               // if all that the guest says names hosts that the policy allows
)

// admits says whether a connection may be tried, and how it is allowed.
func (n *Network) admits(protocol string, to netip.AddrPort) (way, bool) {
	reason := n.refuses(to.Addr())
	if to.Addr() == gateway {
		reason = "the gateway resolves names, and nothing else"
	}
	switch {
	case reason != "":
	case n.policy.allowsAddress(to), n.names.opens(&n.policy, to):
		return byAddress, true
	case protocol == "tcp" && n.names.allowed(&n.policy, to):
		return byName, true
	case n.policy.names():
		reason = "no allowed name was resolved to the address"
	default:
		reason = "the address is not allowed"
	}
	n.deny(protocol, to, n.names.one(to.Addr()), reason)
	return 0, false
}

// refuses says why an address is never reached; "" when it is up to the rules.
func (n *Network) refuses(a netip.Addr) string {
	if reason := n.policy.refuses(a); reason != "" {
		return reason
	}
	own, err := n.host.has(a)
	switch {
	case err != nil:
		return "the host's own addresses are not known"
	case own:
		return "the address is the host's own"
	}
	return ""
}

// open makes a connection from the host. One that turns out to lead to the host
// itself, which has been given that address in the last second, is dropped.
func (n *Network) open(ctx context.Context, protocol, address string) (net.Conn, error) {
	c, err := n.dial(ctx, protocol, address)
	if err != nil {
		return nil, err
	}
	local, _ := netip.ParseAddrPort(c.LocalAddr().String())
	remote, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	if local.Addr() == remote.Addr() && !n.toItself {
		c.Close()
		return nil, errors.New("the address is the host's own")
	}
	return c, nil
}

func destination(id stack.TransportEndpointID) netip.AddrPort {
	a, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	return netip.AddrPortFrom(a.Unmap(), id.LocalPort)
}
