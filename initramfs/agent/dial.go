//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// halfCloser is a connection one direction of which can end.
type halfCloser interface{ CloseWrite() error }

// dialTimeout bounds how long a server may leave a connection untaken.
const dialTimeout = 10 * time.Second

// dial joins the stream with a TCP connection to the guest's loopback.
func dial(stream net.Conn, req *protocol.Dial, r *protocol.Reader, w *protocol.Writer) error {
	port := strconv.Itoa(int(req.Port))
	target, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", port), dialTimeout)
	if err != nil {
		// A server may listen on the other loopback only.
		six, err6 := net.DialTimeout("tcp6", net.JoinHostPort("::1", port), dialTimeout)
		if err6 != nil {
			return notFound("nothing listens on port %s in the guest: %v", port, err)
		}
		target = six
	}
	defer target.Close()
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return fmt.Errorf("%w: %w", errCancelled, err)
	}
	// An abnormal end stays one: what was cut off must not look whole.
	broken := func() {
		if tcp, ok := target.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		target.Close()
		stream.Close()
	}
	toHost := make(chan struct{})
	go func() {
		defer close(toHost)
		if _, err := io.Copy(stream, target); err != nil {
			broken()
		} else if c, ok := stream.(halfCloser); ok {
			_ = c.CloseWrite()
		}
	}()
	if _, err := io.Copy(target, r.Rest()); err != nil {
		broken()
	} else if c, ok := target.(halfCloser); ok {
		_ = c.CloseWrite()
	}
	<-toHost
	return nil
}

// datagrams joins the stream with a UDP port of the guest's loopback.
func datagrams(stream net.Conn, req *protocol.Dial, r *protocol.Reader, w *protocol.Writer) error {
	target, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(req.Port)})
	if err != nil {
		return failed("opening a UDP socket", err)
	}
	defer target.Close()
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return fmt.Errorf("%w: %w", errCancelled, err)
	}
	toHost := make(chan struct{})
	go func() {
		defer close(toHost)
		b := make([]byte, protocol.MaxDatagram)
		for {
			n, err := target.Read(b)
			switch {
			case errors.Is(err, syscall.ECONNREFUSED):
				continue // nobody listens yet, or not any more; datagrams get lost
			case err != nil || protocol.WriteDatagram(stream, b[:n]) != nil:
				return
			}
		}
	}()
	b := make([]byte, protocol.MaxDatagram)
	for {
		n, err := protocol.ReadDatagram(r.Rest(), b)
		if err != nil {
			break
		}
		_, _ = target.Write(b[:n]) // as above
	}
	target.Close()
	<-toHost
	return nil
}

// echo sends back what comes.
func echo(stream net.Conn, r *protocol.Reader, w *protocol.Writer) error {
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return fmt.Errorf("%w: %w", errCancelled, err)
	}
	_, _ = io.Copy(stream, r.Rest()) // it ends with the stream
	return nil
}
