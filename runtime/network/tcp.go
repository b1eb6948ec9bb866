package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout is how long a destination gets to answer: as long as the guest's
// own kernel would wait for several of its tries.
const dialTimeout = 30 * time.Second

// forwardTCP makes a connection of the guest's from the host. What cannot be
// made is refused by a reset at once.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	to := destination(r.ID())
	byName, ok := n.admits("tcp", to)
	if !ok {
		r.Complete(true)
		return
	}
	select {
	case n.flows <- struct{}{}:
		defer func() { <-n.flows }()
	default:
		n.deny("tcp", to, "", "the guest has too many connections")
		r.Complete(true)
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	upstream, err := n.open(ctx, "tcp4", to.String())
	if err != nil {
		r.Complete(true)
		return
	}
	defer upstream.Close()
	var queue waiter.Queue
	endpoint, tcpErr := r.CreateEndpoint(&queue)
	r.Complete(tcpErr != nil)
	if tcpErr != nil {
		return
	}
	guest := gonet.NewTCPConn(&queue, endpoint)
	defer guest.Close()
	defer context.AfterFunc(n.ctx, func() {
		upstream.Close()
		endpoint.Abort()
	})()
	n.counters.connections.Add(1)
	if !byName {
		join(guest, upstream)
		return
	}
	if err := n.joinNamed(guest, upstream, to); err != nil {
		var wrong *wrongName
		if errors.As(err, &wrong) {
			n.deny("tcp", to, wrong.name, wrong.reason)
		}
		endpoint.Abort() // a reset, not an end
	}
}

// halfCloser is a connection whose sending side can be closed alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// pump copies what data, from's own bytes, has until its end, and passes that on.
func pump(to, from net.Conn, data io.Reader) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	// Hidden: a copy by way of ReadFrom would not use the buffer.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{data}, *b)
	if h, ok := to.(halfCloser); ok && err == nil {
		_ = h.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}

// join carries both directions until both have ended.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pump(a, b, b)
	}()
	pump(b, a, a)
	<-done
}

// wrongName is what a guest said that the policy does not allow.
type wrongName struct{ name, reason string }

func (w *wrongName) Error() string { return w.reason }

func (n *Network) checkName(name string, to netip.AddrPort) error {
	if name == "" {
		return &wrongName{"", "the guest did not say which host it wants"}
	}
	if !n.policy.allowsName(name, to.Port()) {
		return &wrongName{name, "the name is not allowed"}
	}
	return nil
}
