package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSilent is wrapped when a supervisor, or the agent of its guest, does not answer
// any more, though neither has ended: it was stopped, or hangs.
var ErrSilent = errors.New("does not answer")

const (
	// A connection that has brought nothing for firstLook is looked into, and then
	// again after twice as long each time, until lastLook.
	firstLook = 5 * time.Second
	lastLook  = 30 * time.Second
	// pingTimeout is how long a supervisor may take to answer a ping, and
	// agentTimeout the agent of a guest that may have more to do than it can.
	pingTimeout  = 5 * time.Second
	agentTimeout = 20 * time.Second
)

func (s *Session) silent(who string, after time.Duration) error {
	return fmt.Errorf("the %s of session %s %w (%v); lumina session stop --force %s ends it", who, s.Info.SID, ErrSilent, after, s.Info.SID)
}

// watched is a connection to the guest that ends when the supervisor or the agent stops
// answering. A command may take as long as it likes: only these two are checked.
type watched struct {
	net.Conn
	s      *Session
	heard  atomic.Bool // since the last look
	ending int         // looks in a row that found the supervisor without its socket
	// looking ends with the connection.
	looking context.Context
	stop    context.CancelFunc

	mu    sync.Mutex
	timer *time.Timer
	cause error
}

func (s *Session) watch(conn net.Conn) *watched {
	w := &watched{Conn: conn, s: s}
	w.looking, w.stop = context.WithCancel(context.Background())
	w.mu.Lock()
	w.timer = time.AfterFunc(firstLook, func() { w.look(firstLook) })
	w.mu.Unlock()
	return w
}

// look finds out whether somebody is there, and comes again.
func (w *watched) look(after time.Duration) {
	next := firstLook
	if !w.heard.Swap(false) {
		err := w.s.ping(w.looking)
		if w.looking.Err() != nil {
			return
		}
		if errors.Is(err, ErrNotFound) && alive(w.s.dir) {
			// It is ending, which takes a moment; or it was stopped on the way.
			if w.ending++; w.ending > 1 {
				err = w.s.silent("supervisor", after)
			}
		}
		if errors.Is(err, ErrSilent) {
			w.mu.Lock()
			w.cause = err
			w.mu.Unlock()
			w.Conn.Close()
			return
		}
		// Any other error shows on the connection itself.
		next = min(2*after, lastLook)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking.Err() == nil {
		w.timer = time.AfterFunc(next, func() { w.look(next) })
	}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(true)
	}
	return n, w.because(err)
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	return n, w.because(err)
}

// because returns why the connection was closed, if it was by look.
func (w *watched) because(err error) error {
	if err == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		return w.cause
	}
	return err
}

func (w *watched) Close() error {
	w.mu.Lock()
	w.stop()
	w.timer.Stop()
	w.mu.Unlock()
	return w.Conn.Close()
}

// CloseWrite passes on a half-close.
func (w *watched) CloseWrite() error {
	if c, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return w.Close()
}

// ping asks the supervisor, and then the guest's agent, for a sign of life. The
// error wraps ErrSilent when one of them gives none.
func (s *Session) ping(ctx context.Context) error {
	for _, p := range []struct {
		op      controlOp
		who     string
		timeout time.Duration
	}{{opPing, "supervisor", pingTimeout}, {opAgent, "guest's agent", agentTimeout}} {
		ask, cancel := context.WithTimeoutCause(ctx, p.timeout, s.silent(p.who, p.timeout))
		_, err := control(ask, s.dir, controlRequest{Op: p.op})
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}
