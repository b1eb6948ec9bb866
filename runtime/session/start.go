package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/driver"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/supervise"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Options says which session to start.
type Options struct {
	SID      string            `json:"sid"`
	Name     string            `json:"name,omitempty"` // unique among sessions that live
	Labels   map[string]string `json:"labels,omitempty"`
	Home     string            `json:"home"`
	VM       runtime.VMOptions `json:"vm"`
	Forwards []forward.Rule    `json:"forwards,omitempty"`
	// TTL ends the session when it was not used for that long; 0: never. What uses it
	// are the commands and copies of its user, as long as they run: forwards are open
	// to everybody on this host, and do not count.
	TTL time.Duration `json:"ttl,omitempty"`
	// Driver runs the VM; this system's own when nil. The process that Start makes is
	// given its own, see [Main].
	Driver vm.Driver `json:"-"`
	// Port connects a member of a network of VMs to its switch. It stays the
	// caller's.
	Port *os.File `json:"-"`
}

// portDescriptor is a supervisor's descriptor of the port.
const portDescriptor = supervise.FirstFile

// outcome is what a supervisor tells its parent.
type outcome struct {
	Error   string            `json:"error,omitempty"`
	Kind    runtime.ErrorKind `json:"kind,omitempty"`
	Console string            `json:"console,omitempty"`
}

// Start starts a session in a process of its own, which runs program with
// args and is expected to call Main. It returns when the VM's agent has
// answered.
func Start(ctx context.Context, program string, args []string, o Options) (*Session, error) {
	o.SID = name.UUID()
	if o.Name != "" {
		if err := errors.Join(CheckName(o.Name), checkFree(o.Home, o.Name)); err != nil {
			return nil, &runtime.Error{Kind: runtime.ConnectionFailed, Err: err}
		}
	}
	// Before the session's directory is made: a full disk is an error that names its remedy.
	if err := runtime.CheckSpace(o.Home, o.VM.DiskReserve); err != nil {
		return nil, &runtime.Error{Kind: runtime.ConnectionFailed, Err: err}
	}
	if o.Port != nil {
		o.VM.Member.Descriptor = portDescriptor
	}
	var files []*os.File
	if o.Port != nil {
		files = append(files, o.Port)
	}
	var out outcome
	var err error
	if o.Driver == nil {
		if o.Driver, err = driver.New(driver.Options{}); err != nil {
			return nil, err
		}
	}
	policy, err := supervise.Policy(program, o.Home, o.Driver)
	if err != nil {
		return nil, err
	}
	share(&policy, o.VM.Volumes)
	err = supervise.Start(ctx, program, args, policy, o, &out, files...)
	if errors.Is(err, supervise.ErrDied) {
		return nil, &runtime.Error{Kind: runtime.ConnectionFailed, Err: fmt.Errorf("the session's %w", err)}
	}
	if err != nil {
		return nil, err
	}
	if out.Error != "" {
		return nil, &runtime.Error{Kind: out.Kind, Err: errors.New(out.Error), Console: out.Console}
	}
	return Open(o.Home, o.SID)
}

// share adds to a policy what a session shares with its guest.
func share(p *confine.Policy, volumes []runtime.Volume) {
	for _, v := range volumes {
		switch {
		case v.Dir == "":
		case v.ReadOnly:
			p.Read = append(p.Read, v.Dir)
		default:
			p.Write = append(p.Write, v.Dir)
		}
	}
}

// heapGrowth is the supervisor's GOGC: it carries bytes and keeps next to none,
// so what it takes is what it leaves lying about.
const heapGrowth = 25

// Main is the supervisor process that Start makes; driver runs its VM, and is this
// system's own when nil.
func Main(ctx context.Context, stdin io.Reader, driver vm.Driver) error {
	debug.SetGCPercent(heapGrowth)
	var o Options
	ctx, report, err := supervise.Main(ctx, stdin, &o)
	if err != nil {
		return err
	}
	if o.VM.Member != nil {
		syscall.CloseOnExec(portDescriptor)
	}
	o.Driver = driver
	s := newSupervisor(o)
	s.settle = func() error {
		var p confine.Policy
		share(&p, o.VM.Volumes)
		return supervise.Settle(s.dir, p, driver)
	}
	return s.supervise(ctx, o, func(err error) {
		out := outcome{}
		if err != nil {
			out = outcome{Error: err.Error(), Kind: runtime.ConnectionFailed}
			var e *runtime.Error
			if errors.As(err, &e) {
				out.Error, out.Kind, out.Console = e.Err.Error(), e.Kind, e.Console
			}
		}
		report(out)
	})
}
