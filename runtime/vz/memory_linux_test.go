package vz

import (
	"fmt"
	"net"
	"os"
	"sync"
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
}

func (f *inMemory) newMachine(c *configuration) (virtualMachine, error) {
	m := &inMemoryMachine{
		simulated: &simulated{s: f.simulation, c: c, changes: make(chan state, 16), accepts: make(chan net.Conn, 16), stopped: make(chan struct{})},
		silent:    f.silent, empty: f.empty,
	}
	for _, d := range c.disks {
		if err := m.lock(d); err != nil {
			m.unlock()
			return nil, fmt.Errorf("disk %q: %w", d.serial, err)
		}
	}
	return m, nil
}

type inMemoryMachine struct {
	*simulated
	silent, empty bool
	once          sync.Once
	mu            sync.Mutex
	there         []net.Conn // the guest's ends
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

func (m *inMemoryMachine) stop() error { m.end(); return nil }

func (*inMemoryMachine) pause() error  { return nil }
func (*inMemoryMachine) resume() error { return nil }

func (m *inMemoryMachine) save(path string) error {
	return os.WriteFile(path, []byte(m.shape()), 0o600)
}

func (m *inMemoryMachine) restore(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(b) != m.shape() {
		return fmt.Errorf("the file is of another configuration")
	}
	m.changes <- stateOther
	return nil
}

func (m *inMemoryMachine) connect(uint32) (net.Conn, error) { return m.guest(), nil }

// crash is a kernel's: its connections break, and the framework starts it again.
func (m *inMemoryMachine) crash() {
	m.hangUp()
	m.accepts <- m.guest()
}

// The driver keeps the contract of drivers, without a VM.
func TestSuiteInMemory(t *testing.T) {
	f := &inMemory{simulation: &simulation{log: t.Logf, hold: 50 * time.Millisecond}}
	spec := func(t testing.TB) vm.Spec {
		s, err := vmtest.Spec(t.TempDir())
		if err == nil {
			_, err = s.Kernel.WriteAt([]byte("HdrS"), 0x202) // a bzImage
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	once := func(t testing.TB, field *bool) vm.Spec {
		*field = true
		t.Cleanup(func() { *field = false })
		return spec(t)
	}
	behind := func(m vm.Machine) *inMemoryMachine { return m.(*machine).vm.(*inMemoryMachine) }
	vmtest.Run(t, vmtest.Target{
		Driver:   &Driver{framework: f, cacheDir: t.TempDir()},
		Spec:     spec,
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
	s, err := vmtest.Spec(t.TempDir())
	if err == nil {
		_, err = s.Kernel.WriteAt([]byte("HdrS"), 0x202)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&Driver{framework: f, cacheDir: t.TempDir()}).Start(t.Context(), s)
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
