//go:build linux

// Package boot is what PID 1 does before and while the agent serves: it
// mounts, names, seeds and connects the guest, and ends it.
//
// The work is ordered tables of tasks. A task that fails stops the boot.
package boot

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mkdir"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// task is one thing to do; String is how an error names it.
type task interface {
	fmt.Stringer
	apply() error
}

// run applies tasks in order and marks the end of each.
func (m *marks) run(tasks []task) error {
	for _, s := range tasks {
		if err := s.apply(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		m.add(s.String())
	}
	return nil
}

// mount mounts a file system, making its mount point when needed.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) String() string { return fmt.Sprintf("mounting %s on %s", m.fstype, m.target) }

func (m mount) apply() error {
	err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	if err == unix.ENOENT {
		if err := mkdir.All(m.target, 0o755); err != nil {
			return err
		}
		err = unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	}
	return err
}

// action is a task that is none of the above.
type action struct {
	name string
	do   func() error
}

func (a action) String() string { return a.name }
func (a action) apply() error   { return a.do() }

// begin does something beside what follows; wait waits for it.
func begin(do func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

// marks collects the moments of the boot.
type marks []protocol.Mark

// Mark marks a moment that is not the end of a task. Not to be called once
// Configure may run.
func (s *System) Mark(name string) { s.marks.add(name) }

func (m *marks) add(name string) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		*m = append(*m, protocol.Mark{Name: name, At: time.Duration(ts.Nano())})
	}
}
