// Package relay carries the bytes of two connections to each other, and how each
// ends: an orderly end arrives as one, anything else as a reset. What is cut off
// must not look whole at the other end.
package relay

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// resetter is a connection that can end with a reset.
type resetter interface{ Reset() error }

// halfCloser is a connection whose sending side can be closed alone.
type halfCloser interface{ CloseWrite() error }

// Reset closes a connection so that its peer sees that it was cut off, where the
// transport can say so.
func Reset(c net.Conn) {
	switch c := c.(type) {
	case resetter:
		_ = c.Reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		c.Close()
	default:
		c.Close()
	}
}

// drain is how long what a peer has sent before its reset is still passed on.
const drain = 5 * time.Second

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// side is one of the two connections.
type side struct {
	net.Conn
	broken atomic.Bool // its peer takes nothing any more
	ended  atomic.Bool // all that it sent has been passed on
}

// Join carries both directions until each has ended. A half-close is passed on.
// The caller closes both.
func Join(a, b net.Conn) {
	first, second := &side{Conn: a}, &side{Conn: b}
	done := make(chan struct{})
	go func() {
		defer close(done)
		carry(first, second)
	}()
	carry(second, first)
	<-done
}

func carry(to, from *side) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := from.Read(*buf)
		if n > 0 {
			if _, err := to.Write((*buf)[:n]); err != nil {
				// What it has sent before may still be there to read. The error is
				// told once: a read may find an orderly end now.
				to.broken.Store(true)
				if to.ended.Load() {
					resetBoth(to, from)
				}
				_ = to.SetReadDeadline(time.Now().Add(drain))
				return
			}
		}
		switch {
		case err == nil:
		case err == io.EOF && !from.broken.Load():
			from.ended.Store(true)
			if from.broken.Load() { // meanwhile, and nobody else saw that it had ended
				resetBoth(to, from)
			} else if h, ok := to.Conn.(halfCloser); ok {
				_ = h.CloseWrite()
			} else {
				to.Close()
			}
			return
		default:
			resetBoth(to, from)
			return
		}
	}
}

func resetBoth(a, b *side) {
	Reset(a.Conn)
	Reset(b.Conn)
}
