package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// agentPortID is QEMU's name of a desktop's port for an agent, and of its other end.
const agentPortID = "agent"

// addAgent gives a desktop a port for the agent that its guest may have.
func (c *command) addAgent() error {
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return fmt.Errorf("making the agent's socket: %w", err)
	}
	c.agent, c.own = here, append(c.own, there)
	c.add("-device", "virtio-serial-pci,max_ports=3",
		"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", agentPortID, c.inherit(there)),
		"-device", fmt.Sprintf("virtserialport,id=%s,chardev=%s,name=%s", agentPortID, agentPortID, protocol.PortName))
	return nil
}

// addClipboard gives a guest that runs spice-vdagent the clipboard of who views its
// screen, and them the guest's: over VNC, which QEMU joins with that agent's port.
func (c *command) addClipboard() {
	c.add("-chardev", "qemu-vdagent,id=clipboard,name=vdagent,clipboard=on,mouse=off",
		"-device", "virtserialport,chardev=clipboard,name=com.redhat.spice.0")
}

// agentPort is a desktop's port for an agent. Its guest may have none, and restarts as
// it likes: each agent that opens the port gets a session of its own, and a new other
// end, in which nothing is left of the one before.
type agentPort struct {
	change func(*os.File) error // gives QEMU a new other end

	dialing chan struct{} // has room for one: who makes a session

	mu      sync.Mutex
	first   *net.UnixConn // our end of the first; nil once it was used
	open    bool          // the guest has the port open, as far as QEMU has said
	session *agentSession // nil for none
}

type agentSession struct {
	*mux.Session
	greeted chan struct{}
	// unopened: the guest will open the port, and that is no other agent's doing.
	unopened bool
}

func newAgentPort(first *net.UnixConn, change func(*os.File) error) *agentPort {
	return &agentPort{change: change, first: first, dialing: make(chan struct{}, 1)}
}

// opened is called when the guest has opened or closed the port. QEMU does not report a
// change that is undone within a second.
func (a *agentPort) opened(open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = open
	if a.session == nil {
		return
	}
	if open && a.session.unopened {
		a.session.unopened = false
		return
	}
	a.session.Close()
	a.session = nil
}

// dial opens a stream to the agent, and waits for one until ctx ends.
func (a *agentPort) dial(ctx context.Context) (net.Conn, error) {
	select {
	case a.dialing <- struct{}{}:
		defer func() { <-a.dialing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		s, err := a.current()
		if err != nil {
			return nil, err
		}
		select {
		case <-s.greeted:
			conn, err := s.Open()
			if err == nil || errors.Is(err, mux.ErrTooManyStreams) {
				return conn, err
			}
		case <-s.Done():
			if err := s.Err(); errors.Is(err, protocol.ErrVersion) || errors.Is(err, protocol.ErrMalformed) {
				a.drop(s)
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		a.drop(s)
	}
}

// current is the session that there is, or a new one.
func (a *agentPort) current() (*agentSession, error) {
	a.mu.Lock()
	s, conn := a.session, a.first
	a.first = nil
	a.mu.Unlock()
	if s != nil && s.Err() == nil {
		return s, nil
	}
	if conn == nil {
		here, there, err := socketpair.New(syscall.SOCK_STREAM)
		if err != nil {
			return nil, fmt.Errorf("making the agent's socket: %w", err)
		}
		err = a.change(there)
		there.Close()
		if err != nil {
			here.Close()
			return nil, fmt.Errorf("%w: %w", vm.ErrEnded, err)
		}
		conn = here
	}
	s = &agentSession{greeted: make(chan struct{})}
	s.Session = mux.Client(&greeting{Conn: conn, done: s.greeted})
	a.mu.Lock()
	s.unopened = !a.open
	a.session = s
	a.mu.Unlock()
	// It waits in the socket for an agent that is not up yet.
	if err := protocol.SendHello(conn); err != nil {
		if read := s.Err(); read != nil {
			err = read // why the session has closed it
		}
		a.drop(s)
		return nil, fmt.Errorf("greeting the guest: %w", err)
	}
	return s, nil
}

func (a *agentPort) drop(s *agentSession) {
	s.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session == s {
		a.session = nil
	}
}

// close lets go of the port, once QEMU has ended.
func (a *agentPort) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first != nil {
		a.first.Close()
		a.first = nil
	}
	if a.session != nil {
		a.session.Close()
		a.session = nil
	}
}

// Dial is part of [vm.Dialer].
func (d *desktop) Dial(ctx context.Context) (net.Conn, error) { return d.agent.dial(ctx) }

// changeAgent gives the port another other end.
func (d *desktop) changeAgent(to *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.qmp.command(to, "getfd", map[string]string{"fdname": agentPortID}); err != nil {
		return err
	}
	return d.qmp.command(nil, "chardev-change", map[string]any{"id": agentPortID, "backend": map[string]any{
		"type": "socket", "data": map[string]any{"server": false, "addr": map[string]any{"type": "fd", "data": map[string]string{"str": agentPortID}}}}})
}
