package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// supervisor owns a session's VM and serves its socket.
type supervisor struct {
	info Info
	dir  string
	vm   *runtime.VM
	ttl  time.Duration

	forwards *forward.Set
	settle   func() error // gives up what only a start needs; nil in a process that does more than this

	stop     chan struct{} // closed when a client asks for the end
	stopOnce sync.Once
	expired  bool          // what asked for the end was the TTL; set before stop is closed
	ended    chan struct{} // closed when crash is set and the VM has ended
	crash    *Crash
	gone     chan struct{} // closed when everything is removed

	buffers sync.Pool // of *[mux.MaxPayload]byte: one frame of the transport

	mu      sync.Mutex
	clients int         // connections being served
	active  int         // of them, streams to the agent
	idle    *time.Timer // runs while active is 0, when there is a ttl
	drained chan struct{}
}

// Supervise runs a session until it is stopped, its VM ends or ctx does. It is
// what a supervisor process does. ready is called once, when the session
// answers or has failed to start.
func Supervise(ctx context.Context, o Options, ready func(error)) error {
	return newSupervisor(o).supervise(ctx, o, ready)
}

func newSupervisor(o Options) *supervisor {
	var volumes []string
	for _, v := range o.VM.Volumes {
		if v.Name != "" {
			volumes = append(volumes, v.Name)
		}
	}
	return &supervisor{
		info: Info{SID: o.SID, Name: o.Name, Labels: o.Labels, Image: o.VM.Image, Volumes: volumes, PID: os.Getpid(), Started: time.Now(), Protocol: protocolVersion,
			CPUs: o.VM.CPUs, Memory: o.VM.Memory},
		dir:     filepath.Join(sessionsDir(o.Home), o.SID),
		buffers: sync.Pool{New: func() any { return new([mux.MaxPayload]byte) }},
		ttl:     o.TTL, stop: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
}

func (s *supervisor) supervise(ctx context.Context, o Options, ready func(error)) error {
	err := s.run(ctx, o, ready)
	close(s.gone)
	s.drain() // answer the clients that asked for the end
	return err
}

func (s *supervisor) run(ctx context.Context, o Options, ready func(error)) (err error) {
	started := false
	defer func() {
		if !started {
			ready(err)
		}
	}()
	lock, err := makeDir(o.Home, &s.info)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer func() {
		// How it crashed stays to be told.
		switch {
		case s.crash != nil:
		case s.expired:
			err = errors.Join(err, expire(s.dir, &s.info, s.ttl))
		default:
			err = errors.Join(err, removeDir(s.dir))
		}
	}()
	// Before the VM: a path that is too long, a port that is taken are said at once.
	if err := supervise.CheckDir(s.dir); err != nil {
		return err
	}
	if s.forwards, err = forward.Listen(o.Forwards); err != nil {
		return err
	}
	defer s.forwards.Close()
	r, err := runtime.Open(runtime.Options{Home: o.Home, Driver: o.Driver})
	if err != nil {
		return err
	}
	if s.vm, err = r.Start(ctx, o.VM); err != nil {
		return NameUsers(o.Home, err)
	}
	defer s.vm.Close()
	s.forwards.Serve(s.vm)
	l, err := supervise.Listen(s.dir)
	if err != nil {
		return err
	}
	defer l.Close()
	s.info.Config, s.info.Cold = s.vm.Image().Config, s.vm.Trace().Cold
	s.info.Network = s.vm.Network() != nil
	s.info.CPUs, s.info.Memory = s.vm.Options().CPUs, s.vm.Options().Memory
	s.info.Ready = true
	if err := writeInfo(s.dir, &s.info); err != nil {
		return err
	}
	s.arm()
	go supervise.Serve(l, func(conn *net.UnixConn, scarce bool) { s.serve(ctx, conn, scarce) })
	started = true
	ready(nil)
	if s.settle != nil { // after ready: no client waits for it
		if err := s.settle(); err != nil {
			return fmt.Errorf("confining the supervisor: %w", err)
		}
	}
	return s.wait(ctx, l)
}

// wait returns when the session is over.
func (s *supervisor) wait(ctx context.Context, l net.Listener) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stop:
		ctx, cancel := context.WithTimeout(ctx, stopTimeout)
		defer cancel()
		return s.vm.Shutdown(ctx)
	case <-s.vm.Done():
	}
	// It crashed. Connected clients learn the reason before the socket closes; others
	// read it from the record until the session is removed.
	s.crash = &Crash{Message: s.vm.EndMessage(), Console: s.vm.Console(), At: time.Now()}
	s.forwards.Close() // which frees descriptors
	err := writeJSON(s.dir, endFile, s.crash)
	close(s.ended)
	s.drain()
	return errors.Join(errors.New(s.crash.Message), err)
}

// drain waits until no client is connected, for a bounded time.
func (s *supervisor) drain() {
	s.mu.Lock()
	drained := make(chan struct{})
	s.drained = drained
	if s.clients == 0 {
		close(drained)
		s.drained = nil
	}
	s.mu.Unlock()
	limit := time.NewTimer(explainTimeout)
	defer limit.Stop()
	select {
	case <-drained:
	case <-limit.C:
	}
}

// stopTimeout bounds an orderly end; after it the VM is killed.
const stopTimeout = 10 * time.Second

// serve serves a client. When descriptors are scarce, it serves those who may free
// some.
func (s *supervisor) serve(ctx context.Context, conn *net.UnixConn, scarce bool) {
	s.count(&s.clients, +1)
	defer s.count(&s.clients, -1)
	kind, passed, err := receiveKind(conn)
	if err != nil {
		return
	}
	if passed != nil && (kind != kindCounted || scarce) {
		passed.Close()
	} else if passed != nil {
		go s.tellMeanwhile(passed, s.vm.Network(), s.vm.Report())
	}
	switch {
	case kind == kindControl:
		s.answer(ctx, conn)
	case (kind == kindAgent || kind == kindCounted) && !scarce:
		s.count(&s.active, +1)
		defer s.count(&s.active, -1)
		s.relay(ctx, conn)
	}
}

func (s *supervisor) count(what *int, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*what += by
	if s.drained != nil && s.clients == 0 {
		close(s.drained)
		s.drained = nil
	}
	if s.idle == nil || what != &s.active {
		return
	}
	if s.active == 0 {
		s.idle.Reset(s.ttl)
	} else {
		s.idle.Stop()
	}
}

// arm starts the countdown to the end of an unused session.
func (s *supervisor) arm() {
	if s.ttl > 0 {
		s.mu.Lock()
		s.idle = time.AfterFunc(s.ttl, func() {
			s.stopOnce.Do(func() {
				s.expired = true
				close(s.stop)
			})
		})
		s.mu.Unlock()
	}
}

func (s *supervisor) askStop() { s.stopOnce.Do(func() { close(s.stop) }) }

// relay carries a client's stream to the agent and back. A client that goes
// drops the agent's stream, which cancels the operation.
func (s *supervisor) relay(ctx context.Context, conn *net.UnixConn) {
	stream, err := s.vm.Dial(ctx)
	if err != nil {
		return // the client finds out why, see explain
	}
	defer stream.Close()
	go func() {
		// An agent that drops the stream may have said why: that is still to be read.
		if err := s.carry(stream, conn); !errors.Is(err, errDropped) {
			stream.Close()
		}
	}()
	_, _ = io.Copy(conn, stream)
	// The client may have a question before it goes; until then its
	// connection counts.
	_ = conn.CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}

var errDropped = errors.New("the agent takes nothing more")

// carry copies what a client sends to the agent. It returns errDropped when the agent
// has dropped the stream, else nil or what ended the client's side. It holds a buffer only while
// there is something in it: a thousand clients that wait for their commands hold
// none.
func (s *supervisor) carry(to io.Writer, from *net.UnixConn) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var buf *[mux.MaxPayload]byte
		var n int
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			buf = s.buffers.Get().(*[mux.MaxPayload]byte)
			for {
				if n, readErr = syscall.Read(int(fd), buf[:]); readErr != syscall.EINTR {
					break
				}
			}
			if readErr == syscall.EAGAIN {
				s.buffers.Put(buf)
				return false
			}
			return true
		})
		if err != nil {
			return err
		}
		if readErr == nil && n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				readErr = errDropped
			}
		}
		s.buffers.Put(buf)
		if readErr != nil || n <= 0 {
			return readErr
		}
	}
}
