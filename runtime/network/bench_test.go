//go:build linux

package network

import (
	"io"
	"net"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// benchGuest is a guest whose internet is one server of this process.
func benchGuest(b *testing.B, do func(net.Conn)) (connect func() net.Conn) {
	b.Helper()
	g := newGuestOf(b, NAT(false), server(b, func(c *net.TCPConn) { do(c); c.Close() }))
	return func() net.Conn {
		c, err := gonet.DialContextTCP(b.Context(), g.stack, full("198.51.100.1:80"), ipv4.ProtocolNumber)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
}

// A connection with one byte each way.
func BenchmarkConnection(b *testing.B) {
	connect := benchGuest(b, func(c net.Conn) { _, _ = io.Copy(c, c) })
	for b.Loop() {
		c := connect()
		one := []byte{1}
		if _, err := c.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// A megabyte from the server.
func BenchmarkDownload(b *testing.B) {
	data, got := make([]byte, 1<<20), make([]byte, 1<<20)
	connect := benchGuest(b, func(c net.Conn) {
		for {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	})
	c := connect()
	defer c.Close()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
	}
}
