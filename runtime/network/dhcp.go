package network

import (
	"context"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// leaseTime is how long a guest may keep its address, which nobody else gets.
const leaseTime = 24 * time.Hour

// serveDHCP answers guests that ask for their address (RFC 2131). An image of
// ours does not ask: it is told with everything else.
func (n *Network) serveDHCP() error {
	var queue waiter.Queue
	endpoint, tcpErr := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if tcpErr != nil {
		return stackError(tcpErr)
	}
	endpoint.SocketOptions().SetBroadcast(true)
	if tcpErr := endpoint.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpv4.ServerPort}); tcpErr != nil {
		endpoint.Close()
		return stackError(tcpErr)
	}
	conn := gonet.NewUDPConn(&queue, endpoint)
	context.AfterFunc(n.ctx, func() { conn.Close() })
	// Whoever asks has no address yet.
	everybody := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
	go func() {
		buf := make([]byte, maxMessage)
		for {
			k, _, err := conn.ReadFrom(buf)
			if err != nil {
				if n.pause() {
					continue
				}
				return
			}
			if reply := lease(buf[:k], n.Search()); reply != nil {
				_, _ = conn.WriteTo(reply, everybody)
			}
		}
	}()
	return nil
}

// lease makes the reply to a DHCP message; nil when it wants none.
func lease(message []byte, search []string) []byte {
	asked, err := dhcpv4.FromBytes(message)
	if err != nil || asked.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	kind, address := dhcpv4.MessageTypeAck, net.IP(guestAddress.AsSlice())
	switch asked.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		wanted := asked.RequestedIPAddress()
		if wanted == nil {
			wanted = asked.ClientIPAddr
		}
		if !wanted.Equal(address) {
			kind = dhcpv4.MessageTypeNak
		}
	case dhcpv4.MessageTypeInform:
	default:
		return nil
	}
	server := net.IP(gatewayAddress.AsSlice())
	reply, err := dhcpv4.NewReplyFromRequest(asked, dhcpv4.WithMessageType(kind),
		dhcpv4.WithServerIP(server), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)))
	if err != nil {
		return nil
	}
	if kind != dhcpv4.MessageTypeNak {
		reply.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(guestNetwork.Bits(), 32)))
		reply.UpdateOption(dhcpv4.OptRouter(server))
		reply.UpdateOption(dhcpv4.OptDNS(server))
		if len(search) > 0 {
			reply.UpdateOption(dhcpv4.OptDomainName(search[0]))
			reply.UpdateOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: search}))
		}
		if asked.MessageType() != dhcpv4.MessageTypeInform {
			reply.YourIPAddr = address
			reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
		}
	}
	return reply.ToBytes()
}
