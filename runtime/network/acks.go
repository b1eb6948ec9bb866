package network

import (
	"encoding/binary"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// acks delays bare acknowledgements to the guest (RFC 9293, 3.8.6.3), which the
// stack does not: an answer that comes meanwhile says the same and saves the guest
// a packet. As there, each second one goes at once.
type acks struct {
	write func(frame []byte) error
	every time.Duration // how often what is held is looked at

	mu   sync.Mutex
	held map[flow]heldAck
	tick *time.Timer // runs while something is held
}

// flow is addresses and ports as they are in a frame, for which the stack's IP
// headers must have no options.
type flow [12]byte

const flowAt = header.EthernetMinimumSize + 12

type heldAck struct {
	frame [maxAck]byte
	size  int
	old   bool // it was held at the last tick
}

const (
	// maxAck is the longest frame that is held back, in bytes: with timestamps,
	// without what tells of losses.
	maxAck = header.EthernetMinimumSize + header.IPv4MinimumSize + header.TCPMinimumSize + 12
	// ackDelay is how late an acknowledgement may be, or twice that.
	ackDelay = time.Millisecond
	// maxHeld bounds how many are held.
	maxHeld = 1024
)

func newAcks(delay time.Duration, write func([]byte) error) *acks {
	a := &acks{write: write, every: delay, held: map[flow]heldAck{}}
	a.tick = time.AfterFunc(delay, a.expire)
	a.tick.Stop()
	return a
}

// send writes a frame, or holds it back.
func (a *acks) send(frame []byte) error {
	f, bare, ok := tcpFlow(frame)
	if !ok {
		return a.write(frame)
	}
	a.mu.Lock()
	_, second := a.held[f]
	if second {
		// Whatever this one is, it acknowledges as much: the stack makes and sends a
		// connection's segments under its lock, in order.
		delete(a.held, f)
	} else if bare && len(a.held) < maxHeld {
		h := heldAck{size: len(frame)}
		copy(h.frame[:], frame)
		if a.held[f] = h; len(a.held) == 1 {
			a.tick.Reset(a.every)
		}
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	return a.write(frame)
}

// expire sends what was held for long enough.
func (a *acks) expire() {
	var late []heldAck
	a.mu.Lock()
	for f, h := range a.held {
		if h.old {
			late = append(late, h)
			delete(a.held, f)
			continue
		}
		h.old = true
		a.held[f] = h
	}
	if len(a.held) > 0 {
		a.tick.Reset(a.every)
	}
	a.mu.Unlock()
	for _, h := range late {
		if a.write(h.frame[:h.size]) != nil {
			return // the link is cut
		}
	}
}

// tcpFlow says which connection a frame of the stack's belongs to, if it is TCP's,
// and whether all it does is to acknowledge.
func tcpFlow(frame []byte) (f flow, bare, ok bool) {
	const ip, tcp = header.EthernetMinimumSize, header.EthernetMinimumSize + header.IPv4MinimumSize
	if len(frame) < tcp+header.TCPMinimumSize ||
		tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(frame[ip-2:])) != header.IPv4ProtocolNumber ||
		header.IPv4(frame[ip:]).HeaderLength() != header.IPv4MinimumSize ||
		header.IPv4(frame[ip:]).TransportProtocol() != header.TCPProtocolNumber {
		return f, false, false
	}
	t := header.TCP(frame[tcp:])
	bare = t.Flags() == header.TCPFlagAck && len(frame) <= maxAck && int(t.DataOffset()) == len(t)
	return flow(frame[flowAt:]), bare, true
}
