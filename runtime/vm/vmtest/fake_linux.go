// Package vmtest has what drivers of [vm] are tested with: one suite of rules for
// all of them, and a driver in memory, for the tests of what stands above drivers.
package vmtest

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

	"github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Fake is a driver whose machines are the real agent, in this process, over a
// pipe. Its guests have no kernel, disks or network; their commands run on this
// host, as this user.
//
// The zero value works. A field that is set makes the machines that are started
// afterwards fail in one place.
type Fake struct {
	// StartError, SaveError and RestoreError are what these calls return.
	StartError, SaveError, RestoreError error
	// Silent guests never answer.
	Silent bool
	// ConfigureError is what a guest's init answers to its configuration.
	ConfigureError error
	// Configuring, unless nil, is called by a guest that has got its configuration, before
	// it answers.
	Configuring func(m *Machine)
	// EndBeforeAgent ends a machine as soon as it has started.
	EndBeforeAgent bool
	// EarlyResets is how many of the next machines end with [vm.ErrEarlyReset].
	EarlyResets int
	// Dialing, unless nil, is called before each stream is opened: the n-th of its
	// machine, from 1. The first is that of the configuration.
	Dialing func(m *Machine, n int)
	// NoSnapshots makes Fingerprint, Save and Restore wrap [vm.ErrUnsupported].
	NoSnapshots bool
	// Clock, unless nil, is told each time that a guest sets its clock to.
	Clock func(time.Time)
	// Room, unless nil, is told what a guest is told of the host's room; its answer is
	// whether the guest has none left.
	Room func(left int64) (none bool)

	mu       sync.Mutex
	machines []*Machine
	saves    int
}

var (
	_ vm.Driver      = (*Fake)(nil)
	_ vm.Snapshotter = (*Fake)(nil)
)

// Machines are those that were started and not yet forgotten, oldest first.
func (f *Fake) Machines() []*Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Machine(nil), f.machines...)
}

// Saves is how many snapshots were made.
func (f *Fake) Saves() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saves
}

// Start is part of [vm.Driver].
func (f *Fake) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	if err := cmp.Or(f.StartError, supported(spec), context.Cause(ctx)); err != nil {
		return nil, err
	}
	return f.start(ctx, spec, false)
}

// supported is what only this driver refuses.
func supported(spec vm.Spec) error {
	if spec.Arch != "amd64" && spec.Arch != "arm64" {
		return fmt.Errorf("architecture %q: %w", spec.Arch, vm.ErrUnsupported)
	}
	return nil
}

func (f *Fake) start(ctx context.Context, spec vm.Spec, restored bool) (*Machine, error) {
	var locks []*os.File
	for _, d := range spec.Disks {
		if d.Lock == nil {
			continue
		}
		fd, err := unix.FcntlInt(d.Lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range locks {
				f.Close()
			}
			return nil, os.NewSyscallError("fcntl", err)
		}
		locks = append(locks, os.NewFile(uintptr(fd), d.Lock.Name()))
	}
	here, there := net.Pipe()
	m := &Machine{
		spec: spec, console: vm.NewTail(cmp.Or(spec.ConsoleTail, 16<<10)), done: make(chan struct{}), silenced: make(chan struct{}),
		here: here, there: there, configureError: f.ConfigureError, configuring: f.Configuring,
		dialing: f.Dialing, restored: restored, locks: locks,
	}
	m.client = mux.Client(here)
	m.stop = context.AfterFunc(ctx, m.Kill)
	f.mu.Lock()
	f.machines = append(f.machines, m)
	reset := f.EarlyResets > 0
	f.EarlyResets = max(0, f.EarlyResets-1)
	f.mu.Unlock()
	m.Print("fake: started\n")
	switch {
	case reset:
		m.finish(fmt.Errorf("%w: %w", vm.ErrEnded, vm.ErrEarlyReset))
	case f.EndBeforeAgent:
		m.Print("fake: no init found\n")
		m.Crash("no init found")
	case f.Silent:
		go func() { _, _ = io.Copy(io.Discard, there) }()
	default:
		streams := mux.Server(&hearing{there, m})
		go func() {
			server := agent.NewServer(system{Init{Off: m.PowerOff, Clock: f.Clock, Room: f.Room}, m}, agent.NewOwnReaper())
			server.KeepLogsIn(os.TempDir()) // this guest's root is the host's
			_ = server.Serve(streams)
		}()
	}
	return m, nil
}

// Fingerprint is part of [vm.Snapshotter].
func (f *Fake) Fingerprint(context.Context, vm.Spec) (string, error) {
	if f.NoSnapshots {
		return "", fmt.Errorf("snapshots: %w", vm.ErrUnsupported)
	}
	return "fake", nil
}

// Save is part of [vm.Snapshotter].
func (f *Fake) Save(ctx context.Context, spec vm.Spec, s vm.Snapshot, prepare func(context.Context, vm.Machine) error) error {
	if _, err := f.Fingerprint(ctx, spec); err != nil {
		return err
	}
	if err := cmp.Or(f.SaveError, supported(spec), context.Cause(ctx)); err != nil {
		return err
	}
	m, err := f.start(ctx, spec, false)
	if err != nil {
		return err
	}
	defer func() {
		m.Kill()
		<-m.Done()
	}()
	if err := prepare(ctx, m); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	f.saves++
	f.mu.Unlock()
	_, err = s.State.WriteAt([]byte(shape(spec)), 0)
	return err
}

// Restore is part of [vm.Snapshotter].
func (f *Fake) Restore(ctx context.Context, spec vm.Spec, s vm.Snapshot) (vm.Machine, error) {
	if _, err := f.Fingerprint(ctx, spec); err != nil {
		return nil, err
	}
	if err := cmp.Or(f.RestoreError, context.Cause(ctx)); err != nil {
		return nil, err
	}
	state := make([]byte, len(shape(spec))+1)
	n, err := s.State.ReadAt(state, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	if string(state[:n]) != shape(spec) {
		return nil, errors.New("the snapshot is of another machine")
	}
	return f.start(ctx, spec, true)
}

// shape is what a snapshot and the machine that goes on from it have in common.
func shape(spec vm.Spec) string {
	return fmt.Sprintf("fake snapshot: %s, %d CPUs, %d bytes, %d disks, NIC %t\n",
		spec.Arch, spec.CPUs, spec.Memory, len(spec.Disks), spec.Network != nil)
}

// Machine is a machine of a [Fake].
type Machine struct {
	spec           vm.Spec
	client         *mux.Session
	here, there    net.Conn
	console        *vm.Tail
	stop           func() bool
	configureError error
	configuring    func(*Machine)
	dialing        func(*Machine, int)
	restored       bool
	locks          []*os.File // of its disks, to its end

	silenced chan struct{} // closed by Silence

	end  sync.Once
	done chan struct{}
	err  error // set before done is closed

	mu         sync.Mutex
	configured []protocol.Configure
	dialed     int
}

var _ vm.Machine = (*Machine)(nil)

// Dial is part of [vm.Machine].
func (m *Machine) Dial(ctx context.Context) (net.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.dialed++
	n := m.dialed
	m.mu.Unlock()
	if m.dialing != nil {
		m.dialing(m, n)
	}
	conn, err := m.client.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vm.ErrEnded, err)
	}
	return conn, nil
}

// Kill is part of [vm.Machine].
func (m *Machine) Kill() { m.finish(vm.ErrEnded) }

// PowerOff ends the machine as its guest would.
func (m *Machine) PowerOff() { m.finish(vm.ErrEnded) }

// Crash ends the machine by itself, for a reason.
func (m *Machine) Crash(reason string) { m.finish(fmt.Errorf("%w: %s", vm.ErrEnded, reason)) }

// Silence stops the guest as a whole, once: nothing more comes from it, and nothing
// more is read. It has not ended.
func (m *Machine) Silence() { close(m.silenced) }

// hearing is the guest's end of the channel.
type hearing struct {
	net.Conn
	m *Machine
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	select {
	case <-h.m.silenced:
		<-h.m.done
	default:
	}
	return n, err
}

func (m *Machine) finish(err error) {
	m.end.Do(func() {
		m.stop()
		m.err = err
		// As of a real one: what the guest said last is read before its end is.
		m.there.Close()
		select {
		case <-m.client.Done():
		case <-time.After(time.Second):
		}
		m.client.Close()
		m.here.Close()
		for _, f := range m.locks {
			f.Close()
		}
		close(m.done)
	})
}

// Done is part of [vm.Machine].
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err is part of [vm.Machine].
func (m *Machine) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Print writes to the machine's console, as its kernel would.
func (m *Machine) Print(s string) { _, _ = m.console.Write([]byte(s)) }

// Console is part of [vm.Machine].
func (m *Machine) Console() string { return m.console.Text() }

// Spec is what the machine was started with.
func (m *Machine) Spec() vm.Spec { return m.spec }

// Restored says whether the machine went on from a snapshot.
func (m *Machine) Restored() bool { return m.restored }

// Configured are the configurations that the guest was given, in order.
func (m *Machine) Configured() []protocol.Configure {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]protocol.Configure(nil), m.configured...)
}

// system is the init that the agent is a part of.
type system struct {
	Init
	m *Machine
}

// Configure is part of [agent.System].
func (s system) Configure(c *protocol.Configure, clock func() (time.Time, error)) (*protocol.Configured, error) {
	if _, err := clock(); err != nil {
		return nil, err
	}
	if s.m.configuring != nil {
		s.m.configuring(s.m)
	}
	if s.m.configureError != nil {
		return nil, s.m.configureError
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.configured = append(s.m.configured, *c)
	return &protocol.Configured{}, nil
}

// Spec is the least that [vm.Spec.Check] lets through, for machines of a [Fake].
// Its files are closed by the caller.
func Spec(dir string) (vm.Spec, error) {
	spec := vm.Spec{Arch: "amd64", CPUs: 1, Memory: 64 << 20}
	for _, name := range []string{"kernel", "initramfs", protocol.DiskRoot, protocol.DiskScratch} {
		f, err := os.CreateTemp(dir, name+"-*")
		if err == nil {
			err = f.Truncate(1 << 20)
		}
		if err != nil {
			return spec, err
		}
		switch name {
		case "kernel":
			spec.Kernel = f
		case "initramfs":
			spec.Initramfs = f
		default:
			spec.Disks = append(spec.Disks, vm.Disk{File: f, Serial: name, ReadOnly: name == protocol.DiskRoot, Ephemeral: true})
		}
	}
	return spec, nil
}
