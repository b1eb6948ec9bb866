package rawconn

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Socket is a connection that is a socket of the system's.
type Socket interface {
	net.Conn
	syscall.Conn
}

// ordinary is a socket on systems for which there is nothing better.
type ordinary struct{ Socket }

// How long to wait for a datagram socket that is full, at first and at most: macOS
// answers ENOBUFS at once, and its poller says that such a socket is writable.
const (
	fullPause    = 50 * time.Microsecond
	maxFullPause = 5 * time.Millisecond
)

// Write waits for a peer that is slow. It ends with the connection, or its write
// deadline.
func (c ordinary) Write(b []byte) (int, error) {
	for pause := fullPause; ; pause = min(2*pause, maxFullPause) {
		n, err := c.Socket.Write(b)
		if n > 0 || !errors.Is(err, syscall.ENOBUFS) {
			return n, err
		}
		time.Sleep(pause)
	}
}

// Offer sends a datagram if there is room for it now.
func (c ordinary) Offer(b []byte) error {
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
func (c ordinary) CloseWrite() error {
	if h, ok := c.Socket.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Reset closes the connection, and the peer sees that it was cut off.
func (c ordinary) Reset() error {
	if t, ok := c.Socket.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	return c.Close()
}
