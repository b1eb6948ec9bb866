package vz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// machine is one virtual machine of the framework's.
type machine struct {
	vm      virtualMachine
	make    func() (virtualMachine, error) // makes another of the same configuration
	begin   func() (end func())            // tells the host that the machine runs, until it does not
	end     func()                         // nil before that
	console *vm.Tail
	files   []*os.File    // of the framework's, as long as the machine
	drained chan struct{} // closed when the console has been read to its end
	kill    chan struct{} // closed by Kill
	killing sync.Once
	reset   chan error    // why the machine must end though its guest goes on
	free    chan struct{} // closed when the framework has let go of the files
	ready   chan struct{} // closed when the agent can be dialled
	once    sync.Once     // closes ready
	agent   *mux.Session  // set before ready is closed
	done    chan struct{}
	err     error // set before done is closed
}

var _ vm.Machine = (*machine)(nil)

func newMachine(consoleTail int) *machine {
	return &machine{
		console: vm.NewTail(cmp.Or(consoleTail, 16<<10)), drained: make(chan struct{}), kill: make(chan struct{}), reset: make(chan error, 1), free: make(chan struct{}),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
}

// Sizes of a NIC's socket buffers, in bytes. The framework drops what does not
// fit, and a full one answers ENOBUFS at once.
const (
	nicSendBuffer    = 1 << 20
	nicReceiveBuffer = 4 << 20
)

// keep duplicates a file of a spec, which may be closed once the machine has
// started, for as long as the machine lives.
func (m *machine) keep(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	kept := os.NewFile(uintptr(fd), f.Name())
	m.files = append(m.files, kept)
	return kept, nil
}

func (m *machine) addNIC(n *vm.NIC) (*nic, error) {
	socket, err := m.keep(n.Socket)
	if err != nil {
		return nil, err
	}
	fd := int(socket.Fd())
	// What the host grants is less on some; then bursts are dropped sooner.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, nicSendBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, nicReceiveBuffer)
	return &nic{socket: socket, mac: n.MAC, mtu: n.MTU}, nil
}

// addConsole adds a console whose output goes to to. see, unless nil, sees it,
// too.
func (m *machine) addConsole(to io.Writer, see func([]byte)) (*console, error) {
	in, toGuest, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.files = append(m.files, in, toGuest)
	fromGuest, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.files = append(m.files, out)
	go func() {
		defer close(m.drained)
		defer fromGuest.Close()
		b := make([]byte, 4096)
		for {
			n, err := fromGuest.Read(b)
			if _, failed := to.Write(b[:n]); failed != nil {
				to = io.Discard // the guest goes on
			}
			if see != nil {
				see(b[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return &console{in: in, out: out}, nil
}

// closeFiles gives back what was the framework's, and reads the console to its
// end: what a kernel says last is why it ended.
func (m *machine) closeFiles() {
	close(m.free)
	if m.end != nil {
		m.end()
	}
	console := len(m.files) > 0
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
	if !console {
		return
	}
	// A framework that kept the console open must not hold the end up.
	select {
	case <-m.drained:
	case <-time.After(time.Second):
	}
}

// fail ends the machine for a reason.
func (m *machine) fail(err error) {
	select {
	case m.reset <- err:
	default:
	}
}

// answerPatience is how long the framework may take for what it is asked: it saves and
// restores gigabytes.
const answerPatience = time.Minute

// noAnswer is why the framework's answer is not waited for any more: it may still do
// what it was asked.
type noAnswer struct{ error }

func (e noAnswer) Unwrap() error { return e.error }

// answer has the framework do something, and waits for it with ctx.
func answer(ctx context.Context, do func() error) error {
	patience := time.NewTimer(answerPatience)
	defer patience.Stop()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return noAnswer{context.Cause(ctx)}
	case <-patience.C:
		return noAnswer{fmt.Errorf("the framework did not answer within %v", answerPatience)}
	}
}

// run starts the machine by start and watches it until it ends, with ctx or by
// itself.
func (m *machine) run(ctx context.Context, start func(virtualMachine) error) error {
	m.end = m.begin()
	var states <-chan state
	err := whileLocked(ctx, func() error {
		if states != nil { // A machine whose start failed has told its end.
			made, err := m.make()
			if err != nil {
				return err
			}
			m.vm = made
		}
		made := m.vm
		// Before the start: a crash in its first moments is seen, too.
		states = made.states()
		return answer(ctx, func() error { return start(made) })
	})
	if err == nil {
		go m.watch(ctx, states)
		return nil
	}
	if errors.As(err, &noAnswer{}) {
		go m.abandon(states)
	} else {
		m.closeFiles()
	}
	m.err = vm.ErrEnded
	close(m.done)
	return err
}

// abandon ends a machine whose start was given up. The files are the
// framework's until it says that the machine has ended: another file with the number
// of one of them would be its console, or its network.
func (m *machine) abandon(states <-chan state) {
	m.Kill()
	for s := range states {
		if s == stateStopped || s == stateFailed {
			break
		}
	}
	m.closeFiles()
}

// boot starts a machine that has an agent.
func (m *machine) boot(ctx context.Context) error {
	err := m.run(ctx, func(made virtualMachine) error {
		// The agent may be up before start returns.
		if err := m.listen(made, true); err != nil {
			return err
		}
		return made.start()
	})
	if err != nil {
		return fmt.Errorf("starting the machine: %w", err)
	}
	return nil
}

// listen hears the guest's agent for as long as the machine lives. first: it has
// not been heard yet.
func (m *machine) listen(made virtualMachine, first bool) error {
	l, err := made.listen(protocol.VsockReadyPort)
	if err != nil {
		return fmt.Errorf("listening for the guest's agent: %w", err)
	}
	go m.hear(l, first)
	go func() {
		<-m.done
		l.close()
	}()
	return nil
}

// hear takes the connections that the guest's agent makes when it starts: the
// first carries all streams, see PROTOCOL.md, another one is that of a guest that
// has reset. A descriptor of a connection is the framework's, which closes it, too
// (Code-Hex/vz#203): there is one in a machine's life, not one a stream.
func (m *machine) hear(l listener, first bool) {
	for ; ; first = false {
		conn, err := l.accept()
		if !first {
			if err == nil {
				conn.Close()
			}
			m.fail(errors.New("the guest reset"))
			return
		}
		if err == nil {
			err = m.greet(conn)
		}
		if err != nil {
			m.fail(fmt.Errorf("greeting the guest: %w", err))
		}
	}
}

// greet begins the conversation with an agent.
func (m *machine) greet(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(greetPatience))
	err := protocol.SendHello(conn)
	if err == nil {
		err = protocol.ReceiveHello(conn)
	}
	if err != nil {
		conn.Close()
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	m.attach(mux.Client(conn))
	return nil
}

// agentGrace is how long a machine whose agent has gone gets to end by itself: one that
// powers off does.
const agentGrace = 500 * time.Millisecond

// attach makes a conversation that of the machine. Its end is the agent's, and so that
// of the guest: a kernel that crashed may take long to reset, or never do.
func (m *machine) attach(agent *mux.Session) {
	m.agent = agent
	m.once.Do(func() { close(m.ready) })
	go func() {
		select {
		case <-agent.Done():
		case <-m.done:
			return
		}
		grace := time.NewTimer(agentGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
			m.fail(errors.New("the guest's agent has gone: its kernel crashed, or it reset"))
		case <-m.done:
		}
	}()
}

// greetPatience is how long an agent that is connected may take to say hello.
const greetPatience = 5 * time.Second

// stopPatience is how long the framework may take to stop a machine. Then the
// machine is given up: it ends with this process.
const stopPatience = 10 * time.Second

// watch waits for the machine's end, and ends it with ctx, or when it must.
func (m *machine) watch(ctx context.Context, states <-chan state) {
	defer close(m.done)
	m.err = vm.ErrEnded
	kill, dead, reset := m.kill, ctx.Done(), m.reset
	var giveUp <-chan time.Time
	for {
		select {
		case <-dead:
			dead = nil
			m.Kill()
		case err := <-reset:
			if kill != nil && ctx.Err() == nil { // it was not asked to end
				m.err = fmt.Errorf("%w: %w", vm.ErrEnded, err)
			}
			reset = nil
			m.Kill()
		case <-kill:
			kill = nil
			giveUp = time.After(stopPatience)
		case s, ok := <-states:
			if s == stateFailed && kill != nil && ctx.Err() == nil {
				m.err = fmt.Errorf("%w with an error of the framework", vm.ErrEnded)
			}
			if !ok || s == stateStopped || s == stateFailed {
				m.hangUp()
				m.closeFiles()
				return
			}
		case <-giveUp:
			m.err = fmt.Errorf("%w, but the framework does not stop it", m.err)
			m.hangUp()
			go m.abandon(states)
			return
		}
	}
}

// hangUp ends the conversation with the agent, if there is one.
func (m *machine) hangUp() {
	select {
	case <-m.ready:
		m.agent.Close()
	default:
	}
}

// Dial is part of [vm.Machine]. It waits for the agent.
func (m *machine) Dial(ctx context.Context) (net.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	select {
	case <-m.ready:
	case <-m.done:
		return nil, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	conn, err := m.agent.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vm.ErrEnded, err)
	}
	return conn, nil
}

// Kill is part of [vm.Machine].
func (m *machine) Kill() {
	m.killing.Do(func() {
		close(m.kill)
		go m.stop()
	})
}

// stop asks the framework to stop the machine until it does: in the midst of a start,
// of saving or of restoring it refuses. The states tell the end.
func (m *machine) stop() {
	for m.vm.stop() != nil {
		select {
		case <-time.After(lockPause):
		case <-m.free:
			return
		}
	}
}

// Done is part of [vm.Machine].
func (m *machine) Done() <-chan struct{} { return m.done }

// Err is part of [vm.Machine].
func (m *machine) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Console is part of [vm.Machine].
func (m *machine) Console() string { return m.console.Text() }
