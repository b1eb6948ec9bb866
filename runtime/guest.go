package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Guest is a configured guest, however it is reached: by the process that owns
// its VM, or through a session's supervisor.
type Guest struct {
	dial   func(context.Context) (net.Conn, error)
	config image.Config
	// explain turns the loss of the connection to the agent into its cause.
	explain func(error) error
}

// NewGuest makes a Guest. dial opens a stream to its agent; explain is given
// the error of a stream that broke and returns what that means.
func NewGuest(config image.Config, dial func(context.Context) (net.Conn, error), explain func(error) error) Guest {
	return Guest{dial: dial, config: config, explain: explain}
}

// Exec runs a command. Its error is an [*Error] when the command has no exit
// code, ctx's cause when that ended, and another when an output could not be
// written.
func (g *Guest) Exec(ctx context.Context, c Command) (Exit, error) {
	return g.execFrom(ctx, c, nil)
}

// execFrom is Exec whose time runs from when begin is closed; nil: from now.
func (g *Guest) execFrom(ctx context.Context, c Command, begin <-chan struct{}) (Exit, error) {
	req, err := c.request(g.config)
	if err != nil {
		return Exit{}, &Error{Kind: ConnectionFailed, Err: err}
	}
	var cancel context.CancelCauseFunc
	if c.Timeout > 0 || c.Signals != nil {
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
	}
	if c.Timeout > 0 {
		go expire(ctx, begin, c.Timeout, cancel)
	}
	conn, err := g.dial(ctx)
	if err != nil {
		return Exit{}, kindOf(ConnectionFailed, err)
	}
	w := &watched{Conn: conn, ctx: ctx}
	defer conn.Close()
	control := client.Control{Terminal: c.Terminal.client()}
	if c.Signals != nil {
		control.Signals = relay(ctx, c.Signals, begin, cancel)
	}
	exit, err := client.Exec(ctx, w, req, client.Stdio(c.Stdio), control)
	return Exit(exit), g.failure(ctx, w, err)
}

// expire cancels ctx when it has lasted for timeout since begin.
func expire(ctx context.Context, begin <-chan struct{}, timeout time.Duration, cancel context.CancelCauseFunc) {
	if begin != nil {
		select {
		case <-begin:
		case <-ctx.Done():
			return
		}
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		cancel(&Error{Kind: Timeout, Err: fmt.Errorf("the command ran longer than %v", timeout)})
	case <-ctx.Done():
	}
}

// Detach starts a command that outlives the call and returns its id.
func (g *Guest) Detach(ctx context.Context, c Command) (id string, err error) {
	req, err := c.request(g.config)
	if err != nil {
		return "", &Error{Kind: ConnectionFailed, Err: err}
	}
	err = g.call(ctx, func(conn net.Conn) error {
		id, err = client.Detach(ctx, conn, req)
		return err
	})
	return id, err
}

// Processes lists what Exec and Detach started, oldest first.
func (g *Guest) Processes(ctx context.Context) (list []Process, err error) {
	err = g.call(ctx, func(conn net.Conn) error {
		all, err := client.Processes(ctx, conn)
		for _, p := range all {
			list = append(list, processOf(p))
		}
		return err
	})
	return list, err
}

// Logs writes the output of a detached command, from its start to what there
// is or, with follow, to its end.
func (g *Guest) Logs(ctx context.Context, id string, follow bool, stdout, stderr io.Writer) error {
	return g.call(ctx, func(conn net.Conn) error {
		return client.Logs(ctx, conn, id, follow, client.Stdio{Stdout: stdout, Stderr: stderr})
	})
}

// Kill sends a signal to the process group of a command.
func (g *Guest) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	return g.call(ctx, func(conn net.Conn) error { return client.Kill(ctx, conn, id, int(signal)) })
}

// call runs one operation on a stream of its own.
func (g *Guest) call(ctx context.Context, do func(net.Conn) error) error {
	conn, err := g.dial(ctx)
	if err != nil {
		return kindOf(ConnectionFailed, err)
	}
	w := &watched{Conn: conn, ctx: ctx}
	defer conn.Close()
	return g.failure(ctx, w, do(w))
}

// failure classifies an error of an operation: the caller's end, the agent's
// word, this host's own doing, or else the loss of the connection, which an agent
// that does not keep to the protocol is, too.
func (g *Guest) failure(ctx context.Context, w *watched, err error) error {
	var refused *protocol.Error
	switch {
	case err == nil || errors.Is(err, client.ErrOutput):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused), errors.Is(err, client.ErrSilent):
		return &Error{Kind: ConnectionFailed, Err: err}
	case !w.broken.Load() && !errors.Is(err, protocol.ErrMalformed):
		return err
	}
	return g.explain(err)
}

// watched notices that a connection broke, whatever became of the error. Its
// Close waits for the classification, except when ctx ended: a supervisor whose
// VM ended stays for the clients that are connected.
type watched struct {
	net.Conn
	ctx    context.Context
	broken atomic.Bool
}

func (w *watched) Close() error {
	if w.ctx.Err() != nil {
		return w.Conn.Close()
	}
	return nil
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.broken.Store(true)
	}
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.broken.Store(true)
	}
	return n, err
}
