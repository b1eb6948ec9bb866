// Package runtime boots images into virtual machines and runs commands in them.
//
//	r, err := runtime.Open(runtime.Options{})
//	result, err := r.Run(ctx, runtime.RunOptions{
//		VM:      runtime.VMOptions{Image: "debian"},
//		Command: runtime.Command{Shell: "uname -a"},
//	})
//
// A VM ends with the process that started it; there is no daemon.
package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/cgroup"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Options configures a Runtime. Zero values mean the defaults.
type Options struct {
	// Home is the state directory; $LUMINA_HOME or ~/.lumina when empty.
	Home string
	// Driver is the name of the VM driver; this system's own when empty.
	Driver string
}

// Runtime is a state directory and the driver that runs its images.
type Runtime struct {
	Images *image.Store
	Driver vm.Driver
	// Templates are the frozen VMs that starts go on from.
	Templates *template.Store
	Volumes   *volume.Store
	home      string
}

// Home finds the state directory: home, else $LUMINA_HOME, else ~/.lumina.
func Home(home string) (string, error) {
	if home == "" {
		home = os.Getenv("LUMINA_HOME")
	}
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the state directory: %w; set LUMINA_HOME", err)
		}
		home = filepath.Join(user, ".lumina")
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return "", fmt.Errorf("finding the state directory: %w", err)
	}
	return home, nil
}

// Open opens the state directory, which need not exist yet.
func Open(options Options) (*Runtime, error) {
	home, err := Home(options.Home)
	if err != nil {
		return nil, err
	}
	driver, err := vm.Open(options.Driver)
	if err != nil {
		return nil, err
	}
	return &Runtime{
		Images:    image.NewStore(filepath.Join(home, "images")),
		Driver:    driver,
		Templates: template.NewStore(filepath.Join(home, "cache", "templates")),
		Volumes:   volume.NewStore(filepath.Join(home, "volumes")),
		home:      home,
	}, nil
}

// Home is the state directory.
func (r *Runtime) Home() string { return r.home }

// RunOptions is one command in one VM of its own.
type RunOptions struct {
	VM      VMOptions
	Command Command
	// Copies go from the host into the guest before the command, Downloads
	// from the guest to the host after it, whatever its exit code.
	Copies, Downloads []Copy
	// MaxSize bounds what each of the Downloads writes, in bytes; 0 for half of
	// what is free where it goes.
	MaxSize int64
	// Forwards are ports of this host's loopback that lead to the VM's while the
	// command runs. Forwarded, unless nil, is told of them before the VM starts.
	Forwards  []forward.Rule
	Forwarded func([]forward.Rule)
}

// Result is how a command ended.
type Result struct {
	ExitCode int
	// Duration is that of the whole call; Boot is the part of it until the command
	// began, 0 for one that never did.
	Duration, Boot time.Duration
	// Stdout and Stderr hold the output where the command had no writer of
	// its own for it.
	Stdout, Stderr []byte
	Trace          Trace
	// Network is what the guest did with its network; nil when it has none.
	Network *NetworkReport
	// HostError is what went wrong on the host while the VM ran, as that its disk
	// is full; "" for nothing.
	HostError string
	// TransferError is why Downloads are not all there. It costs nothing of the
	// result of the command.
	TransferError error
	// NotCopied are sockets, FIFOs and devices that copies left out.
	NotCopied []string
}

// Run boots a VM, runs one command in it and ends the VM. The result is never
// nil: on an error it holds what there was.
func (r *Runtime) Run(ctx context.Context, options RunOptions) (result *Result, err error) {
	result = &Result{}
	begun := time.Now()
	defer func() { result.Duration = time.Since(begun) }()
	var stdout, stderr bytes.Buffer
	if options.Command.Stdout == nil {
		options.Command.Stdout = &stdout
	}
	if options.Command.Stderr == nil {
		options.Command.Stderr = &stderr
	}
	var early *early
	begin := func(v *VM) func() {
		early = v.execEarly(ctx, options.Command)
		return early.over
	}
	if len(options.Copies) > 0 {
		begin = nil // they come before the command
	}
	serve, closeForwards, err := options.forward()
	if err != nil {
		return result, &Error{Kind: ConnectionFailed, Err: err}
	}
	defer closeForwards()
	v, err := r.startBegin(ctx, options.VM, options.Command.Check, begin)
	if err != nil {
		return result, err
	}
	serve(v)
	defer func() {
		result.Network, result.HostError = v.Network(), v.Report()
		err = errors.Join(err, v.finish(ctx))
	}()
	result.Trace = v.Trace()
	// The time of the call runs from its first copy to its last.
	timed, cancel := options.limit(ctx)
	defer cancel()
	if err := options.copyIn(timed, v, result); err != nil {
		return result, err
	}
	result.Boot = time.Since(begun)
	var exit protocol.Exit
	if early != nil {
		exit, err = early.wait()
	} else {
		exit, err = v.Exec(timed, options.Command)
	}
	result.ExitCode = exit.Code
	result.Stdout, result.Stderr = stdout.Bytes(), stderr.Bytes()
	if err != nil {
		return result, err
	}
	options.copyOut(timed, v, result)
	if result.TransferError != nil && ctx.Err() != nil {
		return result, context.Cause(ctx)
	}
	return result, nil
}

// forward binds the ports that are forwarded; serve begins to carry what comes.
func (o *RunOptions) forward() (serve func(*VM), end func(), err error) {
	if len(o.Forwards) == 0 {
		return func(*VM) {}, func() {}, nil
	}
	set, err := forward.Listen(o.Forwards)
	if err != nil {
		return nil, nil, err
	}
	if o.Forwarded != nil {
		o.Forwarded(set.Rules())
	}
	return func(v *VM) { set.Serve(v) }, set.Close, nil
}

// limit is ctx that ends when the call has taken longer than it may.
func (o *RunOptions) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.Command.Timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, o.Command.Timeout, &Error{Kind: Timeout, Err: fmt.Errorf("the command and its copies took longer than %v", o.Command.Timeout)})
}

// Clean removes what processes left that were killed: half-made images and
// scratch disks.
func (r *Runtime) Clean(ctx context.Context) (image.Left, error) {
	cgroup.Clean()
	left, err := r.Images.Clean()
	if err == nil {
		err = r.Volumes.Clean()
	}
	if err == nil {
		err = r.Templates.Clean(false)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return left, err
}
