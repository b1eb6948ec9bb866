package qemu

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// haltGrace is how long a machine gets to end by itself once its guest's kernel
// has said that it is over.
const haltGrace = time.Second

// notes are what happened to a machine that its guest does not tell.
type notes struct {
	mu       sync.Mutex
	disks    map[string]string // names for people, by QEMU's
	disk     string            // the first error of one
	errors   int               // of all of them
	stop     string            // why the machine was ended, if it could not go on
	end      string            // how it ended by itself
	halting  bool
	migrated chan string // states of a migration, of which the last matter
}

// event notes an event of QEMU's. A machine that is stopped, for any reason, would stay
// stopped: nothing resumes it.
func (p *process) event(e message) {
	n := &p.notes
	switch e.Event {
	case "STOP":
		if !p.saving.Load() {
			p.fail("QEMU stopped the machine")
		}
	case "GUEST_PANICKED":
		p.fail("the guest's kernel panicked")
	case "BLOCK_IO_ERROR":
		n.mu.Lock()
		n.errors++
		if n.disk == "" {
			n.disk = diskError(cmp.Or(n.disks[cmp.Or(e.Data.Node, e.Data.Device)], "a disk of the VM"), e.Data)
		}
		n.mu.Unlock()
	case "SHUTDOWN":
		n.mu.Lock()
		switch e.Data.Cause {
		case guestReset:
			n.end = restarted
		case "guest-shutdown":
			n.end = "its guest powered off"
		}
		n.mu.Unlock()
	case "VSERPORT_CHANGE":
		if p.ports != nil && e.Data.ID == agentPortID {
			p.ports(e.Data.Open)
		}
	case "MIGRATION":
		select {
		case n.migrated <- e.Data.Status:
		default: // more of them than a migration has
		}
	}
}

// diskError says in one line what QEMU says of a disk that failed.
func diskError(disk string, e eventData) string {
	operation := "reading from"
	if e.Operation == "write" {
		operation = "writing to"
	}
	// QEMU's own word for it is for machines that it stops. Its locale is C.
	if e.Cause == "No space left on device" || e.Cause == "Disk quota exceeded" {
		return "the host's disk is full: " + operation + " " + disk + " failed, and the guest got the error"
	}
	return fmt.Sprintf("%s %s failed on the host, and the guest got the error: %.100q", operation, disk, e.Cause)
}

// diskName is a disk of a VM for people.
func diskName(serial string) string {
	switch serial {
	case protocol.DiskRoot:
		return "the image's disk"
	case protocol.DiskScratch:
		return "the VM's own disk"
	}
	return "the disk of " + serial
}

// fail ends a machine that does not go on. What QEMU says of it on its standard
// error is added when all of that is there.
func (p *process) fail(why string) {
	p.notes.mu.Lock()
	if p.notes.stop == "" {
		p.notes.stop = why
	}
	p.notes.mu.Unlock()
	p.cancel()
}

// over is how a machine ended that was not killed; err is how its process ended.
func (p *process) over(err error) error {
	p.notes.mu.Lock()
	stop := p.notes.stop
	p.notes.mu.Unlock()
	message := p.stderr.String()
	if stop == "" && err == nil && p.resetEarly() {
		return vm.ErrEarlyReset
	}
	if stop != "" {
		if line := firstLine(message); line != "" {
			stop += ": " + line
		}
		err = errors.New(stop)
	} else if err != nil {
		err = fmt.Errorf("QEMU ended: %w", errors.Join(died(err), textError(strings.TrimSpace(message))))
	}
	if err != nil && strings.Contains(strings.ToLower(message), syscall.ENOMEM.Error()) {
		err = noMemory{err}
	}
	return err
}

// guestReset is QEMU's cause of an end by a reset, also one that the CPU makes of a fault
// for which the guest has no handler. restarted says it to people.
const guestReset, restarted = "guest-reset", "its guest restarted the machine"

// resetEarly says whether a machine that has ended is one of [vm.ErrEarlyReset], which
// then says all of it.
func (p *process) resetEarly() bool {
	select {
	case <-p.greeted:
		return false
	default:
	}
	p.notes.mu.Lock()
	defer p.notes.mu.Unlock()
	early := p.notes.end == restarted && p.port != nil && strings.TrimSpace(p.Console()) == ""
	if early {
		p.notes.end = ""
	}
	return early
}

// noMemory is an end for lack of memory: that is the host's fault, and no template's.
type noMemory struct{ error }

func (e noMemory) Unwrap() error        { return e.error }
func (e noMemory) Is(target error) bool { return target == syscall.ENOMEM }

// died says why a process has ended that did not end by itself, if that is all that is
// known.
func died(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch status, _ := exit.Sys().(syscall.WaitStatus); status.Signal() {
	case syscall.SIGKILL:
		return noMemory{fmt.Errorf("%w: the kernel does that when there is no memory left, the host's or a control group's; else somebody did", err)}
	case syscall.SIGSEGV: // as the first process of a namespace it cannot abort(3)
		return fmt.Errorf("%w: it gave up, or has a defect", err)
	}
	return err
}

// Report is part of [vm.Reporter].
func (p *process) Report() string {
	p.notes.mu.Lock()
	defer p.notes.mu.Unlock()
	disk := p.notes.disk
	if p.notes.errors > 1 {
		disk += fmt.Sprintf(" (the first of %d errors)", p.notes.errors)
	}
	return strings.Trim(disk+"; "+p.notes.end, "; ")
}

var _ vm.Reporter = (*process)(nil)

// firstLine is the first line of QEMU's that is no warning.
func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "warning:") {
			return line
		}
	}
	return ""
}

// head keeps the beginning of what is written to it.
type head struct {
	mu  sync.Mutex
	buf []byte
}

// maxHead is how much a head keeps, in bytes.
const maxHead = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = append(h.buf, p[:min(len(p), maxHead-len(h.buf))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.buf)
}

// halts are what a kernel says last before it stops its CPUs for good. To
// QEMU such a machine is one that waits, and it would for ever: microvm has no
// power to switch off.
var halts = [][]byte{
	[]byte("] reboot: System halted"),
	[]byte("] reboot: Power down"),
	[]byte("] reboot: Power off not available"),
	[]byte("] ---[ end Kernel panic - not syncing"),
}

// maxHalt is longer than all of halts.
const maxHalt = 64

// haltWatch is a console that is listened to.
type haltWatch struct {
	io.Writer
	last   []byte // of what was written before
	halted func(line string)
}

func (h *haltWatch) Write(p []byte) (int, error) {
	// A line may come in parts.
	h.last = append(h.last, p[:min(len(p), maxHalt)]...)
	for _, halt := range halts {
		if bytes.Contains(h.last, halt) || len(p) > maxHalt && bytes.Contains(p, halt) {
			h.halted(string(halt[2:]))
			break
		}
	}
	rest := p[min(len(p), maxHalt):]
	h.last = append(h.last, rest[max(0, len(rest)-maxHalt):]...)
	h.last = append(h.last[:0], h.last[max(0, len(h.last)-maxHalt):]...)
	return h.Writer.Write(p)
}

// halt ends the machine of a guest that has halted.
func (p *process) halt(line string) {
	p.notes.mu.Lock()
	defer p.notes.mu.Unlock()
	if p.notes.halting {
		return
	}
	p.notes.halting = true
	time.AfterFunc(haltGrace, func() {
		select {
		case <-p.done:
		default:
			p.fail("the guest's kernel has halted (" + line + ")")
		}
	})
}
