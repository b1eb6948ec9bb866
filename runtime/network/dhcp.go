package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// leaseTime is how long a guest keeps its address without asking again. It is
// always the same one.
const leaseTime = 24 * time.Hour

// serveDHCP tells a guest that asks what its address is (RFC 2131): desktops do,
// and have no agent that knows.
func (n *Network) serveDHCP() error {
	var queue waiter.Queue
	endpoint, tcpErr := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if tcpErr != nil {
		return errors.New(tcpErr.String())
	}
	endpoint.SocketOptions().SetBroadcast(true)
	if tcpErr := endpoint.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpv4.ServerPort}); tcpErr != nil {
		endpoint.Close()
		return errors.New(tcpErr.String())
	}
	c := gonet.NewUDPConn(&queue, endpoint)
	context.AfterFunc(n.ctx, func() { c.Close() })
	go func() {
		buf := make([]byte, maxMessage)
		for {
			k, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, to := lease(buf[:k]); reply != nil {
				_, _ = c.WriteTo(reply, &net.UDPAddr{IP: to, Port: dhcpv4.ClientPort})
			}
		}
	}()
	return nil
}

// lease makes the reply to a message, and says to which address it goes; nil when
// it is none that is answered.
func lease(message []byte) (reply []byte, to net.IP) {
	request, err := dhcpv4.FromBytes(message)
	if err != nil || request.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, nil
	}
	address := netip.MustParsePrefix(Address)
	own, gateway := net.IP(address.Addr().AsSlice()), net.ParseIP(Gateway).To4()
	kind := dhcpv4.MessageTypeAck
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		if server := request.ServerIdentifier(); server != nil && !server.Equal(gateway) {
			return nil, nil // it takes another one's offer
		}
		asked := request.RequestedIPAddress()
		if asked == nil {
			asked = request.ClientIPAddr
		}
		if !asked.Equal(own) {
			kind = dhcpv4.MessageTypeNak
		}
	case dhcpv4.MessageTypeInform:
	default:
		return nil, nil
	}
	r, err := dhcpv4.NewReplyFromRequest(request, dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway)))
	if err != nil {
		return nil, nil
	}
	if kind == dhcpv4.MessageTypeNak {
		return r.ToBytes(), net.IPv4bcast
	}
	r.YourIPAddr = own
	for _, o := range []dhcpv4.Option{
		dhcpv4.OptSubnetMask(net.CIDRMask(address.Bits(), 32)),
		dhcpv4.OptRouter(gateway),
		dhcpv4.OptDNS(gateway),
		dhcpv4.OptIPAddressLeaseTime(leaseTime),
	} {
		r.UpdateOption(o)
	}
	if request.IsBroadcast() {
		return r.ToBytes(), net.IPv4bcast
	}
	// The guest's hardware address is known: it need not have its address yet.
	return r.ToBytes(), own
}
