package vz

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// inMemory is a framework whose guests are the real agent, in this process. Of what
// the real one does to its driver it does what needs no guest: see [simulation].
type inMemory struct {
	*simulation
	silent, empty bool // the next guests: silent, or without an init
	unreachable   bool // connecting to a restored guest is never answered
	// slow, unless nil, is what starting and saving machines wait for.
	slow     chan struct{}
	made     []*inMemoryMachine
	desktops []*desktopConfiguration
}

func (f *inMemory) newMachine(c *configuration) (virtualMachine, error) {
	if err := f.validate(c.cpus, c.memory); err != nil {
		return nil, err
	}
	m := &inMemoryMachine{simulated: newSimulated(f.simulation, c), silent: f.silent, empty: f.empty, unreachable: f.unreachable, slow: f.slow}
	f.made = append(f.made, m)
	if err := m.lockDisks(); err != nil && !f.lateLock {
		return nil, err
	}
	return m, nil
}

type inMemoryMachine struct {
	*simulated
	silent, empty bool
	unreachable   bool
	slow          chan struct{}
	busy          atomic.Bool // from one state to another: it does not stop
	once          sync.Once
	mu            sync.Mutex
	there         []net.Conn // the guest's ends
}

// wait is what starting and saving do.
func (m *inMemoryMachine) wait() {
	if m.slow != nil {
		m.busy.Store(true)
		<-m.slow
		m.busy.Store(false)
	}
}

// guest is a connection whose other end is an agent that has greeted. The streams of
// one that the host makes have numbers above those of the first.
func (m *inMemoryMachine) guest() net.Conn {
	here, there := net.Pipe()
	m.mu.Lock()
	m.there = append(m.there, there)
	m.mu.Unlock()
	go func() {
		if protocol.ReceiveHello(there) == nil && protocol.SendHello(there) == nil {
			_ = agent.NewServer(vmtest.Init{Off: m.end}, agent.NewOwnReaper()).Serve(mux.Server(there))
		}
	}()
	return here
}

func (m *inMemoryMachine) start() error {
	if err := m.locked(); err != nil {
		return err
	}
	m.wait()
	m.changes <- stateOther
	switch {
	case m.empty:
		m.print("[    0.100000] Kernel panic - ")
		m.print("not syncing: no init found\n")
	case !m.silent:
		m.accepts <- m.guest()
	}
	return nil
}

func (m *inMemoryMachine) print(s string) { _, _ = m.c.console.out.WriteString(s) }

// hangUp breaks the guest's connections.
func (m *inMemoryMachine) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.there {
		c.Close()
	}
}

// end stops the machine.
func (m *inMemoryMachine) end() {
	m.once.Do(func() {
		m.hangUp()
		close(m.stopped)
		m.changes <- stateStopped
		time.AfterFunc(m.s.hold, m.unlock)
	})
}

func (m *inMemoryMachine) stop() error {
	if m.busy.Load() {
		return errors.New("invalid virtual machine state transition")
	}
	if !m.s.deaf.Load() {
		m.end()
	}
	return nil
}

func (*inMemoryMachine) pause() error  { return nil }
func (*inMemoryMachine) resume() error { return nil }

func (m *inMemoryMachine) save(path string) error {
	m.wait()
	return os.WriteFile(path, []byte(m.shape()), 0o600)
}

func (m *inMemoryMachine) restore(path string) error {
	if m.s.noRestore {
		return errors.New("this host restores no machines")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(b) != m.shape() {
		return fmt.Errorf("the file is of another configuration")
	}
	if err := m.locked(); err != nil {
		return err
	}
	m.changes <- stateOther
	return nil
}

func (m *inMemoryMachine) connect(uint32) (net.Conn, error) {
	if m.unreachable {
		<-make(chan struct{})
	}
	return m.guest(), nil
}

// crash is a kernel's: its connections break, and the framework starts it again.
func (m *inMemoryMachine) crash() {
	m.hangUp()
	m.accepts <- m.guest()
}

// memorySpec lays out a machine of inMemory.
func memorySpec(t testing.TB) vm.Spec {
	t.Helper()
	s, err := vmtest.Spec(t.TempDir())
	if err == nil {
		_, err = s.Kernel.WriteAt([]byte("HdrS"), 0x202) // a bzImage
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The driver keeps the contract of drivers, without a VM.
func TestSuiteInMemory(t *testing.T) {
	f := &inMemory{simulation: &simulation{log: t.Logf, hold: 50 * time.Millisecond}}
	once := func(t testing.TB, field *bool) vm.Spec {
		*field = true
		t.Cleanup(func() { *field = false })
		return memorySpec(t)
	}
	behind := func(m vm.Machine) *inMemoryMachine { return m.(*machine).vm.(*inMemoryMachine) }
	vmtest.Run(t, vmtest.Target{
		Driver:   &Driver{framework: f, cacheDir: t.TempDir()},
		Spec:     func(t testing.TB) vm.Spec { return memorySpec(t) },
		NoAgent:  func(t testing.TB) vm.Spec { return once(t, &f.empty) },
		Silent:   func(t testing.TB) vm.Spec { return once(t, &f.silent) },
		PowerOff: func(_ testing.TB, m vm.Machine) { behind(m).end() },
		Crash:    func(_ testing.TB, m vm.Machine) { behind(m).crash() },
		Print:    func(_ testing.TB, m vm.Machine, line string) { behind(m).print(line + "\n") },
		Patience: 20 * time.Second,
	})
}

// A guest whose connection is lost has crashed, if its kernel never resets.
func TestLostAgent(t *testing.T) {
	f := &inMemory{simulation: &simulation{log: t.Logf}}
	m, err := (&Driver{framework: f, cacheDir: t.TempDir()}).Start(t.Context(), memorySpec(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.(*machine).vm.(*inMemoryMachine).hangUp()
	<-m.Done()
	if err := m.Err(); err == vm.ErrEnded || err == nil {
		t.Errorf("Err is %v, want that its agent has gone", err)
	}
}
