package forward

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/runtime/pace"
)

const (
	// flowIdle is how long a client by UDP may be silent, and its guest.
	flowIdle = 90 * time.Second
	// flowQueue is how many datagrams wait for the guest; more are lost, as on any
	// network.
	flowQueue = 32
	// maxQueued bounds what waits for the guest of all clients, in bytes: it need not
	// take anything, and every user of this host can send.
	maxQueued = 4 << 20
	// maxDatagram is the most that one has (RFC 768: 65535 with its header, and IP's).
	maxDatagram = 65507
)

// flow is a client by UDP.
type flow struct {
	queue  chan []byte
	cancel context.CancelFunc
	idle   *time.Timer
}

// flows are the clients of a port.
type flows struct {
	mu   sync.Mutex
	byIP map[netip.AddrPort]*flow
}

// servePackets carries the datagrams of a port.
func (s *Set) servePackets(e *entry) {
	all := &flows{byIP: map[netip.AddrPort]*flow{}}
	buf := make([]byte, maxDatagram)
	pause := time.Millisecond
	for {
		n, from, err := e.packets.ReadFromUDPAddrPort(buf)
		if err != nil {
			if e.ctx.Err() != nil {
				return
			}
			if pace.Wait(e.ctx, pause) != nil { // such as: no memory for buffers
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		all.mu.Lock()
		if f := s.flow(e, all, from); f != nil {
			f.idle.Reset(flowIdle)
			s.enqueue(f, buf[:n])
		}
		all.mu.Unlock()
	}
}

// enqueue has a datagram wait for the guest, if there is room.
func (s *Set) enqueue(f *flow, b []byte) {
	if s.queued.Add(int64(len(b))) <= maxQueued {
		select {
		case f.queue <- append([]byte(nil), b...):
			return
		default:
		}
	}
	s.queued.Add(-int64(len(b)))
}

// flow finds or begins a client's; nil when there are too many. The caller has
// locked all.
func (s *Set) flow(e *entry, all *flows, from netip.AddrPort) *flow {
	if f := all.byIP[from]; f != nil {
		return f
	}
	select {
	case s.flows <- struct{}{}:
	default:
		return nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	f := &flow{queue: make(chan []byte, flowQueue), cancel: cancel, idle: time.AfterFunc(flowIdle, cancel)}
	all.byIP[from] = f
	go func() {
		s.carry(ctx, e, f, from)
		cancel()
		f.idle.Stop()
		all.mu.Lock()
		delete(all.byIP, from)
		f.drop(s)
		all.mu.Unlock()
		<-s.flows
	}()
	return f
}

// drop forgets what was not sent.
func (f *flow) drop(s *Set) {
	for {
		select {
		case b := <-f.queue:
			s.queued.Add(-int64(len(b)))
		default:
			return
		}
	}
}

// carry carries a client's datagrams until ctx ends.
func (s *Set) carry(ctx context.Context, e *entry, f *flow, client netip.AddrPort) {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	guest, err := s.guest.DialPort(dialing, UDP, e.rule.Guest)
	if err != nil {
		return
	}
	defer guest.Close()
	defer context.AfterFunc(ctx, func() { guest.Close() })()
	go func() {
		defer f.cancel()
		buf := make([]byte, maxDatagram)
		for {
			n, err := guest.Read(buf)
			if err != nil {
				return
			}
			f.idle.Reset(flowIdle)
			_, _ = e.packets.WriteToUDPAddrPort(buf[:n], client)
		}
	}()
	for {
		select {
		case b := <-f.queue:
			_, err := guest.Write(b)
			s.queued.Add(-int64(len(b)))
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
