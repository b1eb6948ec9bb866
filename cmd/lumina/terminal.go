package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/runtime"
)

// joinTerminal joins this process's terminal with one in the guest that it gives
// to command: bytes both ways, raw. It is raw from when the command reads, so that
// Ctrl-C ends a boot; restore makes it what it was. Until ctx ends the guest is
// told of its size.
func joinTerminal(ctx context.Context, env *environment, command *runtime.Command) (restore func() error) {
	fd := int(env.stdin.Fd())
	size := func() runtime.TerminalSize {
		columns, rows, err := term.GetSize(fd)
		if err != nil {
			return runtime.TerminalSize{Rows: 24, Columns: 80}
		}
		return runtime.TerminalSize{Rows: uint16(rows), Columns: uint16(columns)}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	sizes := make(chan runtime.TerminalSize)
	go func() {
		defer signal.Stop(resized)
		for {
			select {
			case <-ctx.Done():
				return
			case <-resized:
				select {
				case sizes <- size():
				case <-ctx.Done():
				}
			}
		}
	}()
	if t := env.getenv("TERM"); t != "" {
		command.Env = append([]string{"TERM=" + t}, command.Env...)
	}
	raw := &rawTerminal{Reader: env.stdin, fd: fd}
	command.Terminal = &runtime.Terminal{Size: size(), Sizes: sizes}
	command.Stdio = runtime.Stdio{Stdin: raw, Stdout: env.stdout}
	env.raw = true
	return raw.restore
}

// rawTerminal is a terminal that is raw once it is read.
type rawTerminal struct {
	io.Reader
	fd int

	mu    sync.Mutex
	state *term.State // what it was
	err   error
	over  bool
}

func (t *rawTerminal) Read(p []byte) (int, error) {
	t.mu.Lock()
	if t.state == nil && t.err == nil && !t.over {
		if t.state, t.err = term.MakeRaw(t.fd); t.err != nil {
			t.err = fmt.Errorf("setting the terminal: %w", t.err)
		}
	}
	err := t.err
	t.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return t.Reader.Read(p)
}

func (t *rawTerminal) restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.state == nil {
		return t.err
	}
	if err := term.Restore(t.fd, t.state); err != nil {
		return fmt.Errorf("restoring the terminal: %w", err)
	}
	return nil
}
