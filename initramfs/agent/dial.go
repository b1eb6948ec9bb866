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
	"github.com/abdul-abdi/lumina/initramfs/relay"
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
	relay.Join(&rest{stream, r.Rest()}, target)
	return nil
}

// rest is a stream that is read on where the reader of the request stopped.
type rest struct {
	net.Conn
	r io.Reader
}

func (c *rest) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite ends what the stream sends.
func (c *rest) CloseWrite() error {
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return nil // the host sees the end when the stream is closed
}

// Reset is how a connection that was cut off ends.
func (c *rest) Reset() error {
	relay.Reset(c.Conn)
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
