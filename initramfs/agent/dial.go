//go:build linux

package agent

import (
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// halfCloser is a connection one direction of which can end.
type halfCloser interface{ CloseWrite() error }

// dial joins the stream with a TCP connection to the guest's loopback.
func dial(stream net.Conn, req *protocol.Dial, r *protocol.Reader, w *protocol.Writer) error {
	port := strconv.Itoa(int(req.Port))
	target, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		// A server may listen on the other loopback only.
		six, err6 := net.Dial("tcp6", net.JoinHostPort("::1", port))
		if err6 != nil {
			return notFound("nothing listens on port %s in the guest: %v", port, err)
		}
		target = six
	}
	defer target.Close()
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return fmt.Errorf("%w: %w", errCancelled, err)
	}
	toHost := make(chan struct{})
	go func() {
		defer close(toHost)
		_, _ = io.Copy(stream, target)
		if c, ok := stream.(halfCloser); ok {
			_ = c.CloseWrite()
		}
	}()
	if _, err := io.Copy(target, r.Rest()); err != nil {
		target.Close() // the stream broke: so does the connection
	} else if c, ok := target.(halfCloser); ok {
		_ = c.CloseWrite()
	}
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
