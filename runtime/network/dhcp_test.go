//go:build linux

package network

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A guest that knows nothing gets what an image of ours is told.
func TestDHCP(t *testing.T) {
	g := newGuest(t, Policy{})
	var queue waiter.Queue
	endpoint, tcpErr := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if tcpErr != nil {
		t.Fatal(tcpErr)
	}
	endpoint.SocketOptions().SetBroadcast(true)
	if tcpErr := endpoint.Bind(tcpip.FullAddress{NIC: 1, Port: dhcpv4.ClientPort}); tcpErr != nil {
		t.Fatal(tcpErr)
	}
	c := gonet.NewUDPConn(&queue, endpoint)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	ask := func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		t.Helper()
		if _, err := c.WriteTo(m.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		k, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := dhcpv4.FromBytes(buf[:k])
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	offer := ask(discover)
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	ack := ask(request)
	if offer.MessageType() != dhcpv4.MessageTypeOffer || ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("offer %s\nacknowledgement %s", offer.Summary(), ack.Summary())
	}
	for _, m := range []*dhcpv4.DHCPv4{offer, ack} {
		if m.YourIPAddr.String() != "10.0.2.15" || m.SubnetMask().String() != "ffffff00" ||
			len(m.Router()) != 1 || m.Router()[0].String() != Gateway || len(m.DNS()) != 1 || m.DNS()[0].String() != Gateway ||
			m.DomainName() != "corp.test" || len(m.DomainSearch().Labels) != 1 {
			t.Errorf("address %s", m.Summary())
		}
	}
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 0, 2, 99)))
	if nak := ask(request); nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("another's address: %s", nak.Summary())
	}
}

func FuzzLease(f *testing.F) {
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(discover.ToBytes())
	f.Fuzz(func(t *testing.T, message []byte) {
		reply := lease(message, []string{"corp.test"})
		if reply == nil {
			return
		}
		m, err := dhcpv4.FromBytes(reply)
		if err != nil || !m.YourIPAddr.Equal(net.IPv4zero) && !bytes.Equal(m.YourIPAddr.To4(), []byte{10, 0, 2, 15}) {
			t.Fatalf("%v, %v", m, err)
		}
	})
}
