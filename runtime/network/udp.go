package network

import (
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// idleUDP is after how long without a datagram a flow ends.
	idleUDP = 60 * time.Second
	// idleQuestion is the same for flows to a resolver: each question has one of
	// its own.
	idleQuestion = 10 * time.Second
)

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

// forwardUDP takes a flow, or not.
func (n *Network) forwardUDP(r *udp.ForwarderRequest) bool {
	id := r.ID()
	to := destination(id)
	if !n.flows.take() {
		n.deny("udp", to, "", "the guest has too many connections")
		return false
	}
	var queue waiter.Queue
	endpoint, tcpErr := r.CreateEndpoint(&queue)
	if tcpErr != nil {
		n.flows.give()
		return false
	}
	n.counters.connections.Add(1)
	go func() {
		defer n.flows.give()
		guest := gonet.NewUDPConn(&queue, endpoint)
		defer guest.Close()
		tell := func(err error) bool {
			t, goesOn := troubleOfDatagrams(err)
			n.unreachable(udp.ProtocolNumber, id, 0, t)
			return goesOn
		}
		upstream, err := n.open(n.ctx, "udp4", to.String())
		if err != nil {
			tell(err)
			return
		}
		defer upstream.Close()
		idle := idleUDP
		if to.Port() == dnsPort {
			idle = idleQuestion
		}
		go func() {
			relayDatagrams(guest, upstream, idle, tell)
			guest.Close()
		}()
		relayDatagrams(upstream, guest, idle, tell)
	}()
	return true
}

// relayDatagrams copies until nothing has come for a while. tell says of an error
// whether the flow goes on: a socket tells, once and of either direction, what
// became of an earlier datagram.
func relayDatagrams(to, from net.Conn, idle time.Duration, tell func(error) bool) {
	b := make([]byte, MTU)
	var extended time.Time
	for {
		// A deadline is as good as new for a while, and costs as much as a datagram.
		if now := time.Now(); now.Sub(extended) > idle/60 {
			extended = now
			_ = from.SetReadDeadline(now.Add(idle))
			// An answer keeps the question's side open, too.
			_ = to.SetReadDeadline(now.Add(idle))
		}
		k, err := from.Read(b)
		if err != nil {
			if tell(err) {
				continue
			}
			return
		}
		for range 2 { // the first error may be of an earlier datagram
			if _, err = to.Write(b[:k]); err == nil {
				break
			}
			if !tell(err) {
				return
			}
		}
	}
}
