package network

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Datagrams of every size, one without content and the longest one too, which is in two
// packets, arrive whole in both directions.
func TestDatagramSizes(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	g := newGuestOf(t, NAT(false), func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", server.LocalAddr().String())
	})
	at := full("198.51.100.1:9")
	c, err := gonet.DialUDP(g.stack, nil, &at, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	reply := make([]byte, 1<<16)
	for _, size := range []int{1, 0, 1472, 1473, MTU - 28, MTU - 27, 65507} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := c.Write(sent); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if n, err := c.Read(reply); err != nil || !bytes.Equal(reply[:n], sent) {
			t.Fatalf("of %d bytes came back %d, %v", size, n, err)
		}
	}
}
