package network

import (
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// idleUDP is after how long without a datagram a flow ends.
const idleUDP = 60 * time.Second

// udpHandler forwards the guest's datagrams. Of those that it does not take the
// stack says that their port is unreachable.
func (n *Network) udpHandler() func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	forwarder := udp.NewForwarder(n.stack, n.forwardUDP)
	return func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		if _, ok := n.admits("udp", destination(id)); !ok {
			return false
		}
		return forwarder.HandlePacket(id, pkt)
	}
}

func (n *Network) forwardUDP(r *udp.ForwarderRequest) {
	to := destination(r.ID())
	select {
	case n.flows <- struct{}{}:
	default:
		n.deny("udp", to, "", "the guest has too many connections")
		return
	}
	var queue waiter.Queue
	endpoint, tcpErr := r.CreateEndpoint(&queue)
	if tcpErr != nil {
		<-n.flows
		return
	}
	n.counters.connections.Add(1)
	go func() {
		defer func() { <-n.flows }()
		guest := gonet.NewUDPConn(&queue, endpoint)
		defer guest.Close()
		upstream, err := n.open(n.ctx, "udp4", to.String())
		if err != nil {
			return
		}
		defer upstream.Close()
		go func() {
			relayDatagrams(guest, upstream)
			guest.Close()
		}()
		relayDatagrams(upstream, guest)
	}()
}

// relayDatagrams copies until nothing has come for a while.
func relayDatagrams(to, from net.Conn) {
	b := make([]byte, MTU)
	var extended time.Time
	for {
		// A deadline is as good as new for a while, and costs as much as a datagram.
		if now := time.Now(); now.Sub(extended) > idleUDP/60 {
			extended = now
			_ = from.SetReadDeadline(now.Add(idleUDP))
			// An answer keeps the question's side open, too.
			_ = to.SetReadDeadline(now.Add(idleUDP))
		}
		k, err := from.Read(b)
		if err != nil {
			return
		}
		if _, err := to.Write(b[:k]); err != nil {
			return
		}
	}
}
