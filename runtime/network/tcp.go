package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/abdul-abdi/lumina/initramfs/relay"
)

const (
	// dialTimeout is how long a destination gets to answer: as long as the guest's
	// own kernel would wait for several of its tries.
	dialTimeout = 30 * time.Second
	// maxInFlight is how many connections of a guest are being made at once.
	maxInFlight = 1024
)

// tcpHandler takes the connections that the guest makes.
func (n *Network) tcpHandler() func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	forwarder := tcp.NewForwarder(n.stack, 0, maxInFlight, n.forwardTCP)
	return func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		n.syns.note(id, header.TCP(pkt.TransportHeader().Slice()))
		return forwarder.HandlePacket(id, pkt)
	}
}

// forwardTCP makes a connection of the guest's from the host. What it may not
// have is refused by a reset at once; a destination that cannot be reached is reported as such.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	sequence, known := n.syns.take(id)
	to := destination(id)
	way, ok := n.admits("tcp", to)
	if !ok {
		r.Complete(true)
		return
	}
	if !n.flows.take() {
		n.deny("tcp", to, "", "the guest has too many connections")
		r.Complete(true)
		return
	}
	defer n.flows.give()
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	upstream, err := n.open(ctx, "tcp4", to.String())
	if err != nil {
		t := troubleOf(err)
		_, told := unreachableCodes[t]
		if told = told && known; told {
			n.unreachable(tcp.ProtocolNumber, id, sequence, t)
		}
		r.Complete(!told && t != noAnswer)
		return
	}
	defer upstream.Close()
	var queue waiter.Queue
	endpoint, tcpErr := r.CreateEndpoint(&queue)
	r.Complete(tcpErr != nil)
	if tcpErr != nil {
		relay.Reset(upstream) // the guest has given up
		return
	}
	if size := room(n.flows.open.Load()); size > 0 {
		endpoint.SocketOptions().SetSendBufferSize(size, true)
		endpoint.SocketOptions().SetReceiveBufferSize(size, true)
	}
	guest, host := &guestConn{gonet.NewTCPConn(&queue, endpoint), endpoint}, &hostConn{Conn: upstream}
	defer guest.Close()
	if !n.joined.begin() {
		relay.Reset(upstream)
		return
	}
	defer n.joined.Done()
	defer context.AfterFunc(n.ctx, func() {
		if host.whole.Load() {
			host.Close()
		} else {
			relay.Reset(host)
		}
		endpoint.Abort()
	})()
	n.counters.connections.Add(1)
	if way == byAddress {
		relay.Join(guest, host)
		return
	}
	n.joinNamed(guest, host, to)
}

// guestConn is the guest's end of a connection.
type guestConn struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
}

// Reset ends the connection by a reset.
func (c *guestConn) Reset() error {
	c.endpoint.Abort()
	return c.Close()
}

// hostConn is the other end of it.
type hostConn struct {
	net.Conn
	whole atomic.Bool // all that the guest had to send has been sent
}

// CloseWrite ends what the guest sends.
func (c *hostConn) CloseWrite() error {
	c.whole.Store(true)
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Reset ends the connection by a reset.
func (c *hostConn) Reset() error {
	relay.Reset(c.Conn)
	return nil
}

// joined counts the connections under way.
type joined struct {
	sync.WaitGroup
	mu    sync.Mutex
	ended bool
}

// begin counts one more; false when there are to be no more.
func (j *joined) begin() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.ended {
		j.Add(1)
	}
	return !j.ended
}

// end waits for the last one.
func (j *joined) end() {
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	j.Wait()
}

// wrongName is what a guest said that the policy does not allow.
type wrongName struct{ name, reason string }

func (w *wrongName) Error() string { return w.reason }

// checkName says whether the guest may name a host at a destination.
func (n *Network) checkName(name string, to netip.AddrPort) error {
	switch {
	case name == "":
		return &wrongName{"", "the guest did not say which host it wants"}
	case !validName(strings.ToLower(name)):
		return &wrongName{name, "the name that the guest sent is not a host name"}
	case slices.Contains(plainPorts, to.Port()):
		return &wrongName{name, fmt.Sprintf("port %d is of another protocol than HTTP and TLS; to allow it, name it: HOST:%d", to.Port(), to.Port())}
	case !n.policy.allowsName(name, to.Port()):
		return &wrongName{name, "the name is not allowed"}
	}
	return nil
}

var _ net.Conn = (*guestConn)(nil)
