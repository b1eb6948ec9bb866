package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/relay"
	"github.com/abdul-abdi/lumina/runtime/accept"
)

const (
	// dialTimeout bounds how long a guest may take to take a connection or refuse it.
	dialTimeout = 10 * time.Second
	// maxConnections bounds the connections of a Set, and maxFlows its clients by
	// UDP: each costs memory and, on this host, a descriptor.
	maxConnections = 1024
	maxFlows       = 256
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Guest opens connections to ports of a guest's loopback.
type Guest interface {
	// DialPort connects to a port. For UDP, each Write and Read of the connection
	// is a datagram.
	DialPort(ctx context.Context, protocol string, port uint16) (net.Conn, error)
}

// Set is the forwards of one guest. They can be changed while it runs.
type Set struct {
	mu      sync.Mutex
	all     []*entry
	guest   Guest // nil until Serve
	closed  bool
	slots   chan struct{} // taken by connections
	flows   chan struct{} // and by clients by UDP
	queued  atomic.Int64  // bytes of datagrams that wait for the guest
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup
}

// entry is a rule with what listens for it.
type entry struct {
	rule     Rule
	listener *net.TCPListener // or
	packets  *net.UDPConn
	ctx      context.Context // ends with the rule
	cancel   context.CancelFunc
}

func (e *entry) close() {
	e.cancel()
	if e.listener != nil {
		e.listener.Close()
	} else {
		e.packets.Close()
	}
}

// Listen binds the ports of rules. What comes before Serve waits.
func Listen(rules []Rule) (*Set, error) {
	s := &Set{slots: make(chan struct{}, maxConnections), flows: make(chan struct{}, maxFlows)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if _, err := s.Add(rules); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Add binds more ports, all of them or none, and returns their rules, with the
// host's ports where any was asked for.
func (s *Set) Add(rules []Rule) ([]Rule, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if len(s.all)+len(rules) > maxRules {
		return nil, errTooMany
	}
	var added []*entry
	var bound []Rule
	for _, r := range rules {
		e, err := s.bind(r)
		if err != nil {
			for _, e := range added {
				e.close()
			}
			return nil, err
		}
		added, bound = append(added, e), append(bound, e.rule)
	}
	s.all = append(s.all, added...)
	if s.guest != nil {
		s.start(added)
	}
	return bound, nil
}

// guestPort is where the host's port of a rule leads already; 0 for nowhere. Call
// it with the lock.
func (s *Set) guestPort(r Rule) uint16 {
	for _, e := range s.all {
		if e.rule.Protocol == r.Protocol && e.rule.Host == r.Host {
			return e.rule.Guest
		}
	}
	return 0
}

func (s *Set) bind(r Rule) (*entry, error) {
	e := &entry{rule: r}
	var err error
	at := netip.AddrPortFrom(loopback, r.Host)
	switch r.Protocol {
	case TCP:
		if e.listener, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err == nil {
			e.rule.Host = e.listener.Addr().(*net.TCPAddr).AddrPort().Port()
		}
	case UDP:
		if e.packets, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err == nil {
			e.rule.Host = e.packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		}
	default:
		err = fmt.Errorf("protocol %q", r.Protocol)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && s.guestPort(r) != 0:
		return nil, fmt.Errorf("forwarding port %d: it is forwarded already, to port %d of this VM; choose another port", r.Host, s.guestPort(r))
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("forwarding port %d: another program listens on it; choose another port", r.Host)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("forwarding port %d: this user may not listen on it; choose one above 1023", r.Host)
	case err != nil:
		return nil, fmt.Errorf("forwarding port %d: %w", r.Host, err)
	}
	e.ctx, e.cancel = context.WithCancel(s.ctx)
	return e, nil
}

// Serve begins to carry connections to guest.
func (s *Set) Serve(guest Guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guest = guest
	if !s.closed {
		s.start(s.all)
	}
}

func (s *Set) start(all []*entry) {
	for _, e := range all {
		s.serving.Go(func() {
			if e.listener != nil {
				accept.Each(e.listener, func(c net.Conn) { s.serve(e, c.(*net.TCPConn)) })
			} else {
				s.servePackets(e)
			}
		})
	}
}

// Remove ends forwards with their connections: each of rules names one by its
// protocol and host port; a guest's port of 0 is any.
func (s *Set) Remove(rules []Rule) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*entry
	for _, r := range rules {
		i := slices.IndexFunc(s.all, func(e *entry) bool {
			return e.rule.Protocol == r.Protocol && e.rule.Host == r.Host && (r.Guest == 0 || e.rule.Guest == r.Guest)
		})
		if i < 0 {
			return fmt.Errorf("port %d/%s is not forwarded", r.Host, r.Protocol)
		}
		found = append(found, s.all[i])
	}
	for _, e := range found {
		e.close()
	}
	s.all = slices.DeleteFunc(s.all, func(e *entry) bool { return slices.Contains(found, e) })
	return nil
}

// Rules lists what is forwarded.
func (s *Set) Rules() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := []Rule{}
	for _, e := range s.all {
		rules = append(rules, e.rule)
	}
	return rules
}

// Close ends all forwards and their connections.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for _, e := range s.all {
		e.close()
	}
	s.all = nil
	s.mu.Unlock()
	s.serving.Wait()
}

// serve carries one TCP connection.
func (s *Set) serve(e *entry, client *net.TCPConn) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		relay.Reset(client)
		return
	}
	defer context.AfterFunc(e.ctx, func() { client.Close() })()
	ctx, cancel := context.WithTimeout(e.ctx, dialTimeout)
	defer cancel()
	early := watch(client, cancel)
	guest, err := s.guest.DialPort(ctx, TCP, e.rule.Guest)
	sent, gone := early.end()
	if err != nil || gone {
		if err == nil {
			relay.Reset(guest)
		}
		relay.Reset(client) // as the guest refused it, or did not answer
		return
	}
	defer guest.Close()
	defer context.AfterFunc(e.ctx, func() { guest.Close() })()
	if len(sent) > 0 {
		if _, err := guest.Write(sent); err != nil {
			relay.Reset(client)
			return
		}
	}
	relay.Join(client, guest)
}

// watched reads what a client sends while its connection is being made, so that a
// client that has gone is noticed.
type watched struct {
	client *net.TCPConn
	done   chan struct{}
	buf    []byte
	n      int
	gone   bool
}

// maxEarly bounds what is read of a client before the guest has its connection.
const maxEarly = 16 << 10

// watch begins. gone is called when the client resets its connection; that it has
// sent all it will is no reason.
func watch(client *net.TCPConn, gone func()) *watched {
	w := &watched{client: client, done: make(chan struct{}), buf: make([]byte, maxEarly)}
	go func() {
		defer close(w.done)
		for w.n < len(w.buf) {
			n, err := client.Read(w.buf[w.n:])
			w.n += n
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
				w.gone = true
				gone()
			}
			if err != nil {
				return // its end is read again
			}
		}
	}()
	return w
}

// end returns what the client has sent, and whether it has gone.
func (w *watched) end() (sent []byte, gone bool) {
	_ = w.client.SetReadDeadline(time.Unix(1, 0))
	<-w.done
	_ = w.client.SetReadDeadline(time.Time{})
	return w.buf[:w.n], w.gone
}
