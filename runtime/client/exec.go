package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Stdio is where a process's standard files lead. Nil outputs are discarded;
// a nil Stdin is empty.
type Stdio struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Terminal is the terminal of a process that has one.
type Terminal struct {
	Size protocol.TerminalSize
	// Resized waits for its next size. It returns false when there is none until over
	// is closed.
	Resized func(over <-chan struct{}) (size protocol.TerminalSize, ok bool)
}

// Control is what reaches a process while it runs, beside its input.
type Control struct {
	// Terminal gives it a terminal, unless nil.
	Terminal *Terminal
	// Signals go to its group; may be nil.
	Signals <-chan syscall.Signal
}

// ErrOutput is wrapped when a writer of Stdio failed.
var ErrOutput = errors.New("writing the output of the command")

// Exec runs a process in the guest and returns how it ended. Ending ctx closes
// conn, upon which the agent kills the process's group.
//
// A Stdin that blocks in Read does not hold up the return; its goroutine ends
// with that Read. An error of type *[protocol.Error] is the agent's word that
// the process never ran. conn is closed.
func Exec(ctx context.Context, conn net.Conn, req *protocol.Exec, std Stdio, control Control) (protocol.Exit, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	exit, err := exec(conn, req, std, control)
	return exit, withCause(ctx, err)
}

func exec(conn net.Conn, req *protocol.Exec, std Stdio, control Control) (protocol.Exit, error) {
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	complete := *req
	complete.Stdin = std.Stdin != nil
	terminal := control.Terminal
	if terminal != nil {
		complete.Terminal = &terminal.Size
	}
	if err := w.Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpExec, Exec: &complete}); err != nil {
		return protocol.Exit{}, fmt.Errorf("sending the command: %w", err)
	}
	window := newWindow(protocol.StdinWindow)
	defer window.close()
	if std.Stdin != nil {
		go sendStdin(w, std.Stdin, window)
	}
	over := make(chan struct{})
	defer close(over)
	if terminal != nil {
		go sendSizes(w, terminal, over)
	}
	if control.Signals != nil {
		go sendSignals(w, control.Signals, over)
	}
	for {
		t, payload, err := r.Next()
		if err != nil {
			return protocol.Exit{}, fmt.Errorf("reading from the agent: %w", err)
		}
		switch t {
		case protocol.FrameStdout:
			err = writeTo(std.Stdout, payload, "standard output")
		case protocol.FrameStderr:
			err = writeTo(std.Stderr, payload, "standard error")
		case protocol.FrameStdinCredit:
			var n int
			if n, err = protocol.DecodeCredit(payload); err == nil {
				window.add(n)
			}
		case protocol.FrameExit:
			var exit protocol.Exit
			return exit, protocol.Decode(payload, &exit)
		case protocol.FrameError:
			return protocol.Exit{}, protocol.DecodeError(payload)
		default:
			err = fmt.Errorf("%w: type %d from the agent", protocol.ErrMalformed, t)
		}
		if err != nil {
			return protocol.Exit{}, err
		}
	}
}

func writeTo(w io.Writer, p []byte, name string) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOutput, name, err)
	}
	return nil
}

// sendStdin sends input as far as the window lets it, until the input or the
// exec ends.
func sendStdin(w *protocol.Writer, input io.Reader, window *window) {
	frame := make([]byte, protocol.HeaderSize+protocol.MaxData)
	for {
		limit := window.wait()
		if limit == 0 {
			return
		}
		n, err := input.Read(frame[protocol.HeaderSize:][:min(limit, protocol.MaxData)])
		if n > 0 {
			window.take(n)
			if w.Data(protocol.FrameStdin, frame[:protocol.HeaderSize+n]) != nil {
				return
			}
		}
		if err != nil {
			_ = w.Data(protocol.FrameStdinClose, frame[:protocol.HeaderSize])
			return
		}
	}
}

// sendSizes passes on the terminal's sizes until the exec is over.
func sendSizes(w *protocol.Writer, t *Terminal, over <-chan struct{}) {
	for {
		size, ok := t.Resized(over)
		if !ok || w.Message(protocol.FrameResize, size) != nil {
			return
		}
	}
}

// sendSignals passes signals on until the exec is over.
func sendSignals(w *protocol.Writer, signals <-chan syscall.Signal, over <-chan struct{}) {
	for {
		select {
		case signal, ok := <-signals:
			if !ok || w.Signal(signal) != nil {
				return
			}
		case <-over:
			return
		}
	}
}

// window counts the bytes that may be sent.
type window struct {
	mu     sync.Mutex
	change sync.Cond
	open   int
	closed bool
}

func newWindow(n int) *window {
	w := &window{open: n}
	w.change.L = &w.mu
	return w
}

// wait returns how many bytes may be sent, at least 1, or 0 after close.
func (w *window) wait() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.open == 0 && !w.closed {
		w.change.Wait()
	}
	if w.closed {
		return 0
	}
	return w.open
}

func (w *window) take(n int) {
	w.mu.Lock()
	w.open -= n
	w.mu.Unlock()
}

// add is bounded by what was taken: a guest cannot open more than the window.
func (w *window) add(n int) {
	w.mu.Lock()
	w.open = min(w.open+n, protocol.StdinWindow)
	w.mu.Unlock()
	w.change.Signal()
}

func (w *window) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.change.Signal()
}
