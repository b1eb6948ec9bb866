//go:build linux

// Package agent serves the host's operations inside the guest. One operation
// is one stream of the transport; see package protocol.
package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// System is what the agent asks of the init that it is part of.
type System interface {
	// Configure gives the guest its name, addresses and time. clock waits for
	// the host's.
	Configure(c *protocol.Configure, clock func() (time.Time, error)) (*protocol.Configured, error)
	// SetClock sets the guest's clock. clock waits for the host's.
	SetClock(clock func() (time.Time, error)) error
	// Changes ends every process and writes what they changed of the image, as
	// a tar archive.
	Changes(w io.Writer) error
	// Unpack writes a tar archive into the guest.
	Unpack(u *protocol.Unpack, archive io.Reader) error
	// NextLayer ends every process and begins a layer.
	NextLayer(l *protocol.Layer) error
	// Share waits until a directory that the host serves is mounted, and returns
	// what its FUSE asks and is answered by: a message each Read and Write.
	Share(tag string) (io.ReadWriteCloser, error)
	// Measure notes what is free on the disks that the guest writes to, and says whether
	// Limit has left it none.
	Measure() (full bool, err error)
	// Limit says how many bytes the host has left for the disks, of which the guest takes
	// at most half more than it had when they were measured, it not being the only one;
	// less than none: as many as it likes. It may take so many as least since it has a
	// limit, whatever is left.
	Limit(left, least int64) error
	// Sync stops every process and brings all file systems to disk.
	Sync() error
	// PowerOff ends the VM; it does not return.
	PowerOff()
}

// Server answers operations.
type Server struct {
	// Rehearses: from when a snapshot may be taken until the restored guest is
	// configured, commands that do nothing are run.
	Rehearses bool

	system    System
	reaper    *Reaper
	processes processes
	accounts  accounts
	gate      gate
	template  bool          // a snapshot of the guest may be taken; set before the gate opens
	configure chan struct{} // holds the right to configure
	rehearsal chan struct{} // closed to end it; nil when there is none
}

// NewServer makes a server. Operations wait until the host has configured the
// guest, so that a host can send both at once.
func NewServer(system System, reaper *Reaper) *Server {
	s := &Server{system: system, processes: processes{logs: "/"}, reaper: reaper, configure: make(chan struct{}, 1)}
	s.gate.shut()
	s.configure <- struct{}{}
	return s
}

// KeepLogsIn has the output of detached processes kept in the file system of another
// directory than the root, which is the VM's own disk.
func (s *Server) KeepLogsIn(dir string) { s.processes.logs = dir }

// Configured lets operations pass in a guest that no host configures.
func (s *Server) Configured() {
	<-s.configure
	s.gate.unlock()
}

// gate holds operations up until the guest is configured: in a guest of
// which a snapshot is taken it is shut again, until each restored one is configured.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed when operations may pass
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

func (g *gate) passed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Serve answers the streams of one listener until it fails.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accepting streams: %w", err)
		}
		go s.serve(conn)
	}
}

func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	r, w := protocol.NewReader(conn), protocol.NewWriter(conn)
	var req protocol.Request
	err := r.Expect(protocol.FrameRequest, &req)
	if err == nil {
		err = s.dispatch(conn, &req, r, w)
	}
	if err == nil || errors.Is(err, errCancelled) {
		return
	}
	// The host may be gone; then there is nobody to tell.
	_ = w.Message(protocol.FrameError, asError(err))
}

func asError(err error) *protocol.Error {
	var e *protocol.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, protocol.ErrMalformed):
		return &protocol.Error{Code: protocol.CodeRequest, Message: err.Error()}
	}
	return &protocol.Error{Code: protocol.CodeFailed, Message: err.Error()}
}

func (s *Server) dispatch(conn net.Conn, req *protocol.Request, r *protocol.Reader, w *protocol.Writer) error {
	if req.Version != protocol.Version {
		return &protocol.Error{Code: protocol.CodeVersion, Message: fmt.Sprintf(
			"host speaks protocol version %d, this image's agent %d; make the image again", req.Version, protocol.Version)}
	}
	if req.Op == protocol.OpConfigure && req.Configure != nil {
		return s.configureOnce(req.Configure, r, w)
	}
	if req.Op == protocol.OpShare && req.Share != nil {
		return s.share(conn, req.Share, r, w) // which configuring the guest may need
	}
	<-s.gate.passed()
	switch {
	case req.Op == protocol.OpClock:
		return s.setClock(r, w)
	case req.Op == protocol.OpRoom && req.Room != nil:
		return s.room(req.Room, w)
	case req.Op == protocol.OpExec && req.Exec != nil:
		return s.exec(req.Exec, r, w)
	case req.Op == protocol.OpProcesses:
		return w.Last(protocol.FrameReply, s.processes.list())
	case req.Op == protocol.OpLogs && req.Logs != nil:
		return s.logs(req.Logs, r, w)
	case req.Op == protocol.OpKill && req.Kill != nil:
		return s.kill(req.Kill, w)
	case req.Op == protocol.OpDial && req.Dial != nil:
		return dial(conn, req.Dial, r, w)
	case req.Op == protocol.OpDatagrams && req.Dial != nil:
		return datagrams(conn, req.Dial, r, w)
	case req.Op == protocol.OpEcho:
		return echo(conn, r, w)
	case req.Op == protocol.OpCopyIn && req.CopyIn != nil:
		return copyIn(req.CopyIn, r, w)
	case req.Op == protocol.OpCopyOut && req.CopyOut != nil:
		return copyOut(conn, req.CopyOut)
	case req.Op == protocol.OpChanges:
		return s.changes(w)
	case req.Op == protocol.OpUnpack && req.Unpack != nil:
		return s.unpack(req.Unpack, r, w)
	case req.Op == protocol.OpLayer && req.Layer != nil:
		if err := s.system.NextLayer(req.Layer); err != nil {
			return fmt.Errorf("beginning a layer: %w", err)
		}
		return w.Message(protocol.FrameReply, nil)
	case req.Op == protocol.OpSnapshot:
		return s.prepareSnapshot(w)
	case req.Op == protocol.OpShutdown:
		return s.shutdown(w)
	}
	return &protocol.Error{Code: protocol.CodeRequest, Message: fmt.Sprintf("unknown or incomplete operation %q", req.Op)}
}

// configureOnce configures the guest once and, when a snapshot has been taken, once
// more for each time that it is restored.
func (s *Server) configureOnce(c *protocol.Configure, r *protocol.Reader, w *protocol.Writer) error {
	select {
	case <-s.configure:
	default:
		return &protocol.Error{Code: protocol.CodeRequest, Message: "the guest is configured already"}
	}
	if s.rehearsal != nil {
		close(s.rehearsal)
		s.rehearsal = nil
	}
	clock, err := askTime(r, w)
	if err != nil {
		return err
	}
	reply, err := s.system.Configure(c, clock)
	if err != nil {
		return fmt.Errorf("configuring the guest: %w", err)
	}
	s.template = c.Template
	// The answer goes first: a host that has none starts the VM anew, and must not when a
	// command that waits at the gate has begun.
	defer s.gate.unlock()
	return w.Message(protocol.FrameReply, reply)
}

// askTime asks the host for the time. Its answer tells what time it is now, not when it
// began to ask: that may be a boot ago. It comes while the rest is done.
func askTime(r *protocol.Reader, w *protocol.Writer) (clock func() (time.Time, error), err error) {
	asked := time.Now()
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return nil, err
	}
	return func() (time.Time, error) {
		t, err := r.Clock()
		return t.Add(time.Since(asked)), err
	}, nil
}

// setClock sets the clock of a guest whose host has slept.
func (s *Server) setClock(r *protocol.Reader, w *protocol.Writer) error {
	clock, err := askTime(r, w)
	if err == nil {
		err = s.system.SetClock(clock)
	}
	if err != nil {
		return fmt.Errorf("setting the clock: %w", err)
	}
	return w.Message(protocol.FrameReply, nil)
}

// room measures the guest's disks, or limits what is written to them.
func (s *Server) room(r *protocol.Room, w *protocol.Writer) error {
	var left protocol.RoomLeft
	var err error
	if r.Left == nil {
		left.None, err = s.system.Measure()
	} else {
		err = s.system.Limit(*r.Left, r.Least)
	}
	if err != nil {
		return fmt.Errorf("limiting what is written: %w", err)
	}
	return w.Message(protocol.FrameReply, left)
}

func (s *Server) changes(w *protocol.Writer) error {
	out := bufio.NewWriterSize(&stdoutWriter{w, make([]byte, protocol.HeaderSize, protocol.HeaderSize+protocol.MaxData)}, protocol.MaxData)
	if err := s.system.Changes(out); err != nil {
		return fmt.Errorf("reading what was changed: %w", err)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return w.Message(protocol.FrameReply, nil)
}

// stdoutWriter writes Stdout frames.
type stdoutWriter struct {
	w     *protocol.Writer
	frame []byte
}

func (s *stdoutWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), protocol.MaxData)
		if err := s.w.Data(protocol.FrameStdout, append(s.frame[:protocol.HeaderSize], p[:n]...)); err != nil {
			return 0, err
		}
		p = p[n:]
	}
	return total, nil
}

// prepareSnapshot makes operations wait for the Configure that comes when the guest has
// been restored from a snapshot.
func (s *Server) prepareSnapshot(w *protocol.Writer) error {
	if !s.template {
		return &protocol.Error{Code: protocol.CodeRequest, Message: "the guest was not configured as a template"}
	}
	s.gate.shut()
	var rehearsal chan struct{}
	if s.Rehearses {
		rehearsal = make(chan struct{})
	}
	s.rehearsal = rehearsal
	s.configure <- struct{}{}
	err := w.Message(protocol.FrameReply, nil)
	if err == nil && rehearsal != nil {
		go rehearse(rehearsal, s.runNothing)
	}
	return err
}

func (s *Server) shutdown(w *protocol.Writer) error {
	err := s.system.Sync()
	if err == nil {
		err = w.Message(protocol.FrameReply, nil)
	} else {
		_ = w.Message(protocol.FrameError, asError(err))
	}
	s.system.PowerOff()
	return err
}
