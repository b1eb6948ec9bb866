//go:build linux

package network

import (
	"net"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/rawconn"
)

// Where the calls on the network's sockets are to be announced, connections to the
// internet are such that they are.
func TestAnnounced(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, want := range []bool{false, true} {
		n, err := New(NAT(false), net.HardwareAddr{2, 0, 0, 0, 0, 1}, Options{Announced: want})
		if err != nil {
			t.Fatal(err)
		}
		c, err := n.dial(t.Context(), "tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*rawconn.Conn).Announced(); got != want {
			t.Errorf("a connection is announced: %v, want %v", got, want)
		}
		if got := n.link.conn.Announced(); got != want {
			t.Errorf("the link is announced: %v, want %v", got, want)
		}
		c.Close()
		n.Close()
	}
}
