package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Command is a process to run in a VM: Shell, or Entrypoint and Args, or what the
// image says when none is set.
type Command struct {
	// Shell is a command for /bin/sh -c; Args is a program and its
	// arguments, run without one.
	Shell string
	Args  []string
	// Entrypoint, unless nil, takes the place of the image's ENTRYPOINT and CMD:
	// Args are its arguments. "" is none, so that Args are a program again.
	Entrypoint *string
	// Env adds NAME=value to the image's environment.
	Env  []string
	Dir  string // the image's working directory when empty
	User string // the image's user when empty
	// Timeout ends the process; 0 for none.
	Timeout time.Duration
	// Terminal gives the process a terminal; its output goes to Stdout.
	Terminal *agent.Terminal
	// Signals, unless nil, are read from when the command runs, and go to its process
	// group. After one that asks it to end (SIGINT, SIGTERM, SIGHUP, SIGQUIT) it is killed
	// by the next such one, or when StopGrace is over.
	Signals <-chan syscall.Signal
	agent.Stdio
}

// defaultPath is the PATH of a process whose image sets none, as with other
// container tools.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ErrNoCommand is wrapped when neither the caller nor the image says what to run.
var ErrNoCommand = errors.New("no command given")

// Check says what is wrong with a command in VMs of an image, as far as that can
// be told without one.
func (c *Command) Check(config image.Config) error {
	_, err := c.request(config)
	return err
}

// program is what to run, and whether it is for the shell.
func (c *Command) program(config image.Config) (args []string, shell bool, err error) {
	switch {
	case c.Shell != "" && (len(c.Args) > 0 || c.Entrypoint != nil && *c.Entrypoint != ""):
		return nil, false, errors.New("a command is either for the shell or a program")
	case c.Shell != "":
		return []string{c.Shell}, true, nil
	case c.Entrypoint != nil && *c.Entrypoint != "":
		args = append([]string{*c.Entrypoint}, c.Args...)
	case c.Entrypoint != nil && len(c.Args) == 0:
		return nil, false, fmt.Errorf("%w: with an empty entrypoint the image's command does not count", ErrNoCommand)
	case c.Entrypoint != nil || len(c.Args) > 0:
		args = c.Args
	default:
		// As builders write it who reset one.
		if len(config.Entrypoint) != 1 || config.Entrypoint[0] != "" {
			args = append(args, config.Entrypoint...)
		}
		if args = append(args, config.Cmd...); len(args) == 0 {
			return nil, false, fmt.Errorf("%w, and the image has neither ENTRYPOINT nor CMD", ErrNoCommand)
		}
	}
	if args[0] == "" {
		return nil, false, errors.New("the name of the program is empty")
	}
	return args, false, nil
}

func (c *Command) request(config image.Config) (*protocol.Exec, error) {
	args, shell, err := c.program(config)
	if err != nil {
		return nil, err
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, fmt.Errorf("environment variable %q is not NAME=value", e)
		}
	}
	req := &protocol.Exec{Args: args, Shell: shell, Dir: c.Dir, User: c.User}
	if !path.IsAbs(req.Dir) {
		req.Dir = path.Join("/", config.WorkingDir, req.Dir)
	}
	if req.User == "" {
		req.User = config.User
	}
	req.Env = mergeEnv([]string{defaultPath}, config.Env, c.Env)
	return req, nil
}

// mergeEnv joins environments; later ones win.
func mergeEnv(lists ...[]string) []string {
	var merged []string
	index := map[string]int{}
	for _, list := range lists {
		for _, e := range list {
			name, _, _ := strings.Cut(e, "=")
			if i, ok := index[name]; ok {
				merged[i] = e
				continue
			}
			index[name] = len(merged)
			merged = append(merged, e)
		}
	}
	return merged
}

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
func (g *Guest) Exec(ctx context.Context, c Command) (protocol.Exit, error) {
	return g.execFrom(ctx, c, nil)
}

// execFrom is Exec whose time runs from when begin is closed; nil: from now.
func (g *Guest) execFrom(ctx context.Context, c Command, begin <-chan struct{}) (protocol.Exit, error) {
	req, err := c.request(g.config)
	if err != nil {
		return protocol.Exit{}, &Error{Kind: ConnectionFailed, Err: err}
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
		return protocol.Exit{}, kindOf(ConnectionFailed, err)
	}
	w := &watched{Conn: conn, ctx: ctx}
	defer conn.Close()
	control := agent.Control{Terminal: c.Terminal}
	if c.Signals != nil {
		control.Signals = relay(ctx, c.Signals, begin, cancel)
	}
	exit, err := agent.Exec(ctx, w, req, c.Stdio, control)
	return exit, g.failure(ctx, w, err)
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
		id, err = agent.Detach(ctx, conn, req)
		return err
	})
	return id, err
}

// Processes lists what Exec and Detach started, oldest first.
func (g *Guest) Processes(ctx context.Context) (list []protocol.Process, err error) {
	err = g.call(ctx, func(conn net.Conn) error {
		list, err = agent.Processes(ctx, conn)
		return err
	})
	return list, err
}

// Logs writes the output of a detached command, from its start to what there
// is or, with follow, to its end.
func (g *Guest) Logs(ctx context.Context, id string, follow bool, stdout, stderr io.Writer) error {
	return g.call(ctx, func(conn net.Conn) error {
		return agent.Logs(ctx, conn, id, follow, agent.Stdio{Stdout: stdout, Stderr: stderr})
	})
}

// Kill sends a signal to the process group of a command.
func (g *Guest) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	return g.call(ctx, func(conn net.Conn) error { return agent.Kill(ctx, conn, id, int(signal)) })
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
// word, this host's own doing, or else the loss of the connection.
func (g *Guest) failure(ctx context.Context, w *watched, err error) error {
	var refused *protocol.Error
	switch {
	case err == nil || errors.Is(err, agent.ErrOutput):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused), errors.Is(err, agent.ErrSilent):
		return &Error{Kind: ConnectionFailed, Err: err}
	case !w.broken.Load():
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
