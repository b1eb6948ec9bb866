//go:build !linux

// Package rawconn is sockets that are read and written without Go's scheduler being
// told. That is done on Linux; elsewhere they are ordinary ones.
package rawconn

import (
	"context"
	"net"
	"net/netip"
)

// Conn is a connected socket.
type Conn struct{ ordinary }

// New makes a Conn of a socket.
func New(s Socket) (*Conn, error) { return &Conn{ordinary{s}}, nil }

// Announce does nothing: all calls go through the scheduler.
func (c *Conn) Announce() {}

// Announced says that all calls go through the scheduler.
func (c *Conn) Announced() bool { return true }

// DialTCP connects to an IPv4 address. There are no keep-alives, and no delays.
func DialTCP(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return &Conn{ordinary{c.(*net.TCPConn)}}, nil
}
