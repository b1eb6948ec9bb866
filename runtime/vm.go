package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// crashGrace is how long a VM whose agent has gone gets to end by itself, so
// that its end can be told.
const crashGrace = 2 * time.Second

// VM is a running virtual machine whose agent answers.
type VM struct {
	Guest
	machine vm.Machine
	network *network.Network // nil for none
	image   *image.Handle
	options VMOptions
	trace   Trace
	ready   chan struct{} // closed when the agent has answered
	clock   *hostClock
	room    room
	// unshared says which shared directory is not served any more; nil for none.
	unshared atomic.Pointer[string]
}

func newVM(img *image.Handle, options VMOptions, machine vm.Machine) *VM {
	v := &VM{machine: machine, image: img, options: options, ready: make(chan struct{}), clock: newHostClock()}
	v.Guest = NewGuest(img.Config, v.dial, func(err error) error { return v.ended(VMCrashed, err) })
	return v
}

// dial opens a stream to the agent. Its error says how the machine ended, if it has.
func (v *VM) dial(ctx context.Context) (net.Conn, error) {
	conn, err := v.Dial(ctx)
	if errors.Is(err, vm.ErrEnded) {
		return nil, v.ended(ConnectionFailed, err)
	}
	return conn, err
}

// end kills the machine and waits for its end.
func (v *VM) end() {
	v.machine.Kill()
	<-v.machine.Done()
}

// ended explains an error of the connection to the agent: the VM's end, if it
// has ended, tells more than the broken connection.
func (v *VM) ended(kind ErrorKind, err error) error {
	var refused *protocol.Error
	if errors.As(err, &refused) {
		return &Error{Kind: ConnectionFailed, Err: err, Console: v.machine.Console()}
	}
	if errors.Is(err, protocol.ErrMalformed) {
		return &Error{Kind: kind, Err: fmt.Errorf("the agent does not keep to its protocol: %w", err), Console: v.machine.Console()}
	}
	grace := time.NewTimer(crashGrace)
	defer grace.Stop()
	select {
	case <-v.machine.Done():
		err = endError{v.EndMessage(), v.machine.Err()}
	case <-grace.C:
		if !errors.Is(err, errNoAnswer) {
			err = fmt.Errorf("the agent stopped answering: %w", err)
		}
	}
	return &Error{Kind: kind, Err: err, Console: v.machine.Console()}
}

// endError is how a VM ended, with the driver's error for who asks for a kind.
type endError struct {
	message string
	cause   error
}

func (e endError) Error() string { return e.message }
func (e endError) Unwrap() error { return e.cause }

// Image is the image that the VM runs.
func (v *VM) Image() *image.Image { return v.image.Image }

// Trace says where the time of the boot went.
func (v *VM) Trace() Trace { return v.trace }

// Done is closed when the VM has ended.
func (v *VM) Done() <-chan struct{} { return v.machine.Done() }

// Dial opens a stream to the agent, see package client.
func (v *VM) Dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-v.ready:
		v.setClock(ctx)
	default: // it is about to be told the time
	}
	return v.machine.Dial(ctx)
}

// DialPort connects to a port of the guest's loopback, see [forward.Guest].
func (v *VM) DialPort(ctx context.Context, protocol string, port uint16) (net.Conn, error) {
	stream, err := v.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if protocol == forward.UDP {
		return client.Datagrams(ctx, stream, port)
	}
	return client.Dial(ctx, stream, port)
}

var _ forward.Guest = (*VM)(nil)

// finish ends a VM whose work is done: at once, unless something outlives it.
// It does not wait for the memory of a killed one to be freed.
func (v *VM) finish(ctx context.Context) error {
	if len(v.options.Volumes) == 0 {
		v.machine.Kill()
		return v.free()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return v.Shutdown(ctx)
}

// shutdownTimeout bounds the orderly end of a VM with volumes.
const shutdownTimeout = 30 * time.Second

// Close ends the VM at once and waits for its end. What it wrote is lost.
func (v *VM) Close() error {
	v.end()
	return v.free()
}

// free gives back what the machine does not need any more.
func (v *VM) free() error {
	err := v.image.Close()
	if v.network != nil {
		err = errors.Join(err, v.network.Close())
	}
	return err
}

// Shutdown ends the VM in order: everything it wrote to its volumes is on disk
// when it returns. When ctx ends first, the VM is killed.
func (v *VM) Shutdown(ctx context.Context) error {
	// A guest that reads nothing any more holds even who asks it: the write waits.
	defer context.AfterFunc(ctx, v.machine.Kill)()
	conn, err := v.machine.Dial(ctx)
	if err == nil {
		err = client.Shutdown(ctx, conn)
	}
	if err == nil && v.options.Init == image.InitSystemd {
		// Its services are still to be stopped. Without it nothing runs any more, and
		// the machine need not find its own end.
		select {
		case <-v.machine.Done():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, v.Close())
}

// Options are what the VM was started with, defaults filled in.
func (v *VM) Options() VMOptions { return v.options }

// Console is the end of what the guest's kernel and init printed.
func (v *VM) Console() string { return v.machine.Console() }

// EndMessage says how a VM ended that was not stopped.
func (v *VM) EndMessage() string {
	report := v.Report()
	err := v.machine.Err()
	switch abnormal := err != nil && err != vm.ErrEnded; {
	case abnormal && report != "":
		return err.Error() + "; " + report
	case abnormal:
		return err.Error()
	case report != "":
		return "the VM ended unexpectedly: " + report
	}
	return "the VM ended unexpectedly"
}

// Report says in one line what the host noticed that the guest does not tell, as
// that a disk of the host's is full; "" when there is nothing to say.
func (v *VM) Report() string {
	report, _ := v.report()
	return report
}

// ReportSince is Report if there is more than there was before, or it goes on.
func (v *VM) ReportSince(before string) string {
	report, now := v.report()
	if report == before && !now {
		return ""
	}
	return report
}

func (v *VM) report() (report string, now bool) {
	if report := v.unshared.Load(); report != nil {
		return *report, false
	}
	report, now = v.roomReport()
	if r, ok := v.machine.(vm.Reporter); ok {
		report = strings.Trim(report+"; "+r.Report(), "; ")
	}
	return report, now
}
