//go:build linux

package network

import (
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

// A guest that asks is told its address, and only that one.
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
	ask := func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		t.Helper()
		if _, err := c.WriteTo(m.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 1500)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		r, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, broadcast := range []bool{false, true} {
		discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(broadcast))
		if err != nil {
			t.Fatal(err)
		}
		offer := ask(discover)
		request, err := dhcpv4.NewRequestFromOffer(offer)
		if err != nil {
			t.Fatal(err)
		}
		r := ask(request)
		if offer.MessageType() != dhcpv4.MessageTypeOffer || r.MessageType() != dhcpv4.MessageTypeAck || r.YourIPAddr.String() != "10.0.2.15" ||
			r.SubnetMask().String() != "ffffff00" || r.Router()[0].String() != Gateway || r.DNS()[0].String() != Gateway || r.IPAddressLeaseTime(0) != leaseTime {
			t.Errorf("broadcast %v: %s", broadcast, r.Summary())
		}
		request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 0, 2, 99)))
		if r := ask(request); r.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("another address: %s", r.Summary())
		}
	}
}

func FuzzLease(f *testing.F) {
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, message []byte) {
		if reply, _ := lease(message); len(reply) > 576+len(message) {
			t.Errorf("a reply of %d bytes", len(reply))
		}
	})
}
