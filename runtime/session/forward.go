package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/agent"
)

// Forward makes a TCP port of the guest's loopback reachable on the host's.
type Forward struct {
	Host  uint16 `json:"host"`
	Guest uint16 `json:"guest"`
}

// ParseForward reads HOST:GUEST.
func ParseForward(s string) (Forward, error) {
	host, guest, ok := strings.Cut(s, ":")
	h, hErr := strconv.ParseUint(host, 10, 16)
	g, gErr := strconv.ParseUint(guest, 10, 16)
	if !ok || hErr != nil || gErr != nil || h == 0 || g == 0 {
		return Forward{}, fmt.Errorf("forward %q is not HOSTPORT:GUESTPORT", s)
	}
	return Forward{Host: uint16(h), Guest: uint16(g)}, nil
}

// forwards are listeners on 127.0.0.1, and nowhere else.
type forwards []net.Listener

func (f forwards) close() {
	for _, l := range f {
		l.Close()
	}
}

func (s *supervisor) forward(wanted []Forward) (forwards, error) {
	var all forwards
	for _, f := range wanted {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(f.Host))))
		if err != nil {
			all.close()
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, fmt.Errorf("forwarding port %d: another program listens on it; choose another port", f.Host)
			}
			return nil, fmt.Errorf("forwarding port %d: %w", f.Host, err)
		}
		all = append(all, l)
		go s.serveForward(l, f.Guest)
	}
	return all, nil
}

func (s *supervisor) serveForward(l net.Listener, port uint16) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			s.count(&s.active, +1)
			defer s.count(&s.active, -1)
			stream, err := s.vm.Dial(context.Background())
			if err != nil {
				return
			}
			defer stream.Close()
			guest, err := agent.Dial(stream, port)
			if err != nil {
				reset(conn) // as the guest refused it
				return
			}
			splice(conn, guest)
		}()
	}
}

// reset makes the close of conn a reset rather than an orderly end.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

type halfCloser interface{ CloseWrite() error }

// splice carries both directions until each has ended; a half-close is passed
// on.
func splice(a, b net.Conn) {
	done := make(chan struct{})
	carry := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if c, ok := to.(halfCloser); ok && err == nil {
			_ = c.CloseWrite()
			return
		}
		a.Close()
		b.Close()
	}
	go func() {
		defer close(done)
		carry(a, b)
	}()
	carry(b, a)
	<-done
}
