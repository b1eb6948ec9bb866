//go:build !linux

// Package rawconn is sockets that are read and written without Go's scheduler being
// told. That is done on Linux; elsewhere they are ordinary ones.
package rawconn

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// Conn is a connected socket.
type Conn struct{ Socket }

// Socket is a connection that is a socket of the system's.
type Socket interface {
	net.Conn
	syscall.Conn
}

// New makes a Conn of a socket.
func New(s Socket) (*Conn, error) { return &Conn{s}, nil }

// Offer sends a datagram if there is room for it now.
func (c *Conn) Offer(b []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = syscall.Sendto(int(fd), b, syscall.MSG_DONTWAIT, nil) }); err != nil {
		return err
	}
	return sent
}

// CloseWrite ends what this side sends.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Socket.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Reset closes the connection, and the peer sees that it was cut off.
func (c *Conn) Reset() error {
	if t, ok := c.Socket.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	return c.Close()
}

// DialTCP connects to an IPv4 address. There are no keep-alives, and no delays.
func DialTCP(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return &Conn{c.(*net.TCPConn)}, nil
}
