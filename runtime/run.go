package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/network"
)

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
	// command runs. Forwarded, if not nil, is called with them before the VM starts.
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
	Network *network.Report
	// HostError is what went wrong on the host while the VM ran, as that its disk
	// is full; "" for nothing.
	HostError string
	// TransferError is why Downloads are not all there. It costs nothing of the
	// result of the command.
	TransferError error
	// NotCopied are sockets, FIFOs and devices that copies left out.
	NotCopied []string
}

// Run starts a VM, runs one command in it and ends the VM. The result is never
// nil: on an error it holds what there was.
func (r *Runtime) Run(ctx context.Context, options RunOptions) (result *Result, err error) {
	result = &Result{}
	begun := time.Now()
	defer func() { result.Duration = time.Since(begun) }()
	command := options.Command
	var stdout, stderr bytes.Buffer
	if command.Stdout == nil {
		command.Stdout = &stdout
	}
	if command.Stderr == nil {
		command.Stderr = &stderr
	}
	forwards, err := options.listen()
	if err != nil {
		return result, err
	}
	defer forwards.Close()
	along := len(options.Copies) == 0 // they come before the command
	v, sent, err := r.startNamed(ctx, options.VM, &command, along)
	if err != nil {
		return result, err
	}
	forwards.Serve(v)
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
	var exit Exit
	if along {
		exit, err = sent.wait()
	} else {
		exit, err = v.Exec(timed, command)
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

// listen binds the ports that are forwarded.
func (o *RunOptions) listen() (*forward.Set, error) {
	set, err := forward.Listen(o.Forwards)
	if err != nil {
		return nil, &Error{Kind: ConnectionFailed, Err: err}
	}
	if len(o.Forwards) > 0 && o.Forwarded != nil {
		o.Forwarded(set.Rules())
	}
	return set, nil
}

// limit is ctx that ends when the call has taken longer than it may.
func (o *RunOptions) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.Command.Timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, o.Command.Timeout, &Error{Kind: Timeout, Err: fmt.Errorf("the command and its copies took longer than %v", o.Command.Timeout)})
}
