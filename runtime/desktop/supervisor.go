package desktop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/supervise"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Options says how to boot a desktop.
type Options struct {
	Home string `json:"home"`
	ID   string `json:"id"` // or the name
	// ISO is the path of an image that takes the place of the desktop's own;
	// NoISO for none.
	ISO string `json:"iso,omitempty"`
	// Capture boots the ISO's Linux without its loader, for its serial port.
	Capture bool `json:"capture,omitempty"`
	Window  bool `json:"window,omitempty"`
	// SerialFile is the path of a file that gets what the guest writes to its
	// serial port. Serial gets it, too.
	SerialFile string    `json:"serial,omitempty"`
	Serial     io.Writer `json:"-"`
	// Timeout ends the desktop after a time; 0: never.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Driver runs the desktop; this system's own when nil. The process that Start makes
	// is given its own, see [Main].
	Driver vm.Driver `json:"-"`
}

// NoISO is for Options.ISO.
const NoISO = "none"

// supervisor is the process that runs a desktop, and serves its socket.
type supervisor struct {
	m        *Manifest
	dir      string
	machine  vm.Desktop
	network  *network.Network
	serial   *os.File
	record   *record
	picture  *picture
	options  Options
	started  time.Time
	stop     chan bool     // requests to end it; true: at once
	gone     chan struct{} // closed when all has ended
	keyboard sync.Mutex    // one at a time types
}

// Supervise runs a desktop until its guest powers off, somebody stops it, or ctx
// ends. ready is called once, when the machine runs or has failed to.
func Supervise(ctx context.Context, o Options, ready func(error)) error {
	s := &supervisor{stop: make(chan bool), gone: make(chan struct{}), picture: newPicture(), options: o}
	err := s.run(ctx, o, ready)
	close(s.gone)
	return err
}

func (s *supervisor) run(ctx context.Context, o Options, ready func(error)) (err error) {
	running := false
	defer func() {
		if !running {
			ready(err)
		}
	}()
	store := NewStore(o.Home)
	if s.m, err = store.Find(o.ID); err != nil {
		return err
	}
	s.dir = store.path(s.m.ID)
	lock, err := store.hold(s.m)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := names(lock); err != nil {
		return err
	}
	// Read again: it was somebody else's before it was locked.
	if s.m, err = readManifest(s.dir); err != nil {
		return fmt.Errorf("desktop %q: %w", o.ID, err)
	}
	if s.m.Installing {
		return fmt.Errorf("desktop %q: the installation of its system did not finish; remove it with lumina desktop rm %s and install it again", s.m.Name, s.m.Name)
	}
	if err := supervise.CheckDir(s.dir); err != nil {
		return err
	}
	// What a supervisor left that was killed.
	socket := filepath.Join(s.dir, "socket")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Once it runs, the guest may power off before it is ended with ctx.
	machineContext, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	whileStarting := context.AfterFunc(ctx, cancel)
	s.record = newRecord(s.dir)
	defer func() {
		told := err
		if ctx.Err() != nil {
			told = nil // somebody asked for it
		}
		s.record.end(told)
	}()
	defer s.end()
	if err := s.start(machineContext, o); err != nil {
		return fmt.Errorf("booting desktop %q: %w", s.m.Name, err)
	}
	whileStarting()
	s.started = time.Now()
	now := s.started.UTC()
	s.m.LastBooted = &now
	if err := s.m.write(s.dir); err != nil {
		return err
	}
	l, err := supervise.Listen(s.dir)
	if err != nil {
		return err
	}
	defer l.Close()
	go supervise.Serve(l, func(conn *net.UnixConn, scarce bool) { s.serve(ctx, conn, scarce) })
	go s.pictures(machineContext)
	running = true
	ready(nil)
	return s.attend(ctx, o)
}

// attend waits for the desktop's end, and shows its window meanwhile where that is
// this process's own.
func (s *supervisor) attend(ctx context.Context, o Options) error {
	w, ok := s.machine.(vm.Windowed)
	if !ok || !o.Window {
		return s.wait(ctx, o.Timeout, nil)
	}
	closed, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.wait(ctx, o.Timeout, closed)
		s.machine.Kill() // the window ends with it
	}()
	err := w.RunWindow(s.m.Name)
	close(closed)
	return errors.Join(err, <-ended)
}

// end frees what start made.
func (s *supervisor) end() {
	if s.machine != nil {
		s.machine.Kill()
		<-s.machine.Done()
	}
	if s.network != nil {
		s.network.Close()
	}
	if s.serial != nil {
		s.serial.Close()
	}
}

// start opens what the machine is made of, and starts it.
func (s *supervisor) start(ctx context.Context, o Options) error {
	driver, err := Driver(o.Driver)
	if err != nil {
		return err
	}
	if s.m.Family == MacOS {
		if _, err := macDriver(driver); err != nil {
			return err // a bundle that was copied here
		}
	}
	p, err := s.m.open(s.dir)
	if err != nil {
		return err
	}
	defer p.files.close()
	s.network = p.network
	s.record.reached(PhaseParts)
	p.files.named = namesDisks(driver)
	spec := &p.spec
	spec.Window = o.Window
	if err := s.addISO(spec, o, &p.files); err != nil {
		return err
	}
	serial := []io.Writer{s.record}
	if o.SerialFile != "" {
		flag := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if info, err := os.Stat(o.SerialFile); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			flag = os.O_RDWR | syscall.O_NONBLOCK // a desktop does not wait for a reader
		}
		if s.serial, err = os.OpenFile(o.SerialFile, flag, 0o600); err != nil {
			return err
		}
		serial = append(serial, s.serial)
	}
	if o.Serial != nil {
		serial = append(serial, o.Serial)
	}
	spec.Serial = io.MultiWriter(serial...)
	machine, err := driver.StartDesktop(ctx, *spec)
	if err == nil {
		s.machine = machine
		s.record.reached(PhaseMachine)
	}
	return err
}

// stopTimeout is how long a guest has to power off once its button is pressed. macOS
// asks who is logged in first.
func (m *Manifest) stopTimeout() time.Duration {
	if m.Family == MacOS {
		return 30 * time.Second
	}
	return 10 * time.Second
}

// wait waits for what ends the desktop. That its window was closed is like its
// power button.
func (s *supervisor) wait(ctx context.Context, timeout time.Duration, windowClosed <-chan struct{}) error {
	var expired <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), s.powerOff())
	case <-expired:
		return &runtime.Error{Kind: runtime.Timeout, Err: fmt.Errorf("desktop %q ran longer than %v", s.m.Name, timeout)}
	case now := <-s.stop:
		if now {
			return nil
		}
		return s.powerOff()
	case <-windowClosed:
		return s.powerOff()
	case <-s.machine.Done():
		return s.result()
	}
}

// result is how the machine ended.
func (s *supervisor) result() error {
	if err := s.machine.Err(); err != vm.ErrEnded {
		return fmt.Errorf("desktop %q: %w", s.m.Name, err)
	}
	return nil
}

// powerOff gives the guest the time to end by itself.
func (s *supervisor) powerOff() error {
	select {
	case <-s.machine.Done():
		return s.result()
	default:
	}
	s.lastPicture()
	if err := s.machine.PowerButton(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.m.stopTimeout())
	defer cancel()
	// An image of lumina's need not have anybody who heeds the button.
	if d, ok := s.machine.(vm.Dialer); ok {
		go shutDown(ctx, d)
	}
	select {
	case <-s.machine.Done():
	case <-ctx.Done():
	}
	return nil
}

// shutDown asks the agent, if there is one, to end its guest in order.
func shutDown(ctx context.Context, d vm.Dialer) {
	conn, err := d.Dial(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = client.Shutdown(ctx, conn) // the machine ends under it
}

// A connection to the socket begins with one byte, its kind.
//
// kindControl: one JSON request, one JSON reply.
//
// kindViewer: everything that follows is RFB.
//
// kindAgent: everything that follows is a stream to the guest's agent.
const (
	kindControl = 'c'
	kindViewer  = 'v'
	kindAgent   = 'a'
)

// maxRequest bounds a request, maxReply a reply, in bytes.
const (
	maxRequest = 1 << 20
	maxReply   = 128 << 20
)

// request is what a desktop is asked for: one of it.
type request struct {
	Status     bool       `json:"status,omitempty"`
	Screenshot bool       `json:"screenshot,omitempty"`
	Chords     [][]vm.Key `json:"chords,omitempty"` // pressed one after the other
	Click      *Click     `json:"click,omitempty"`
	Serial     []byte     `json:"serial,omitempty"` // typed into the serial port
	Viewer     bool       `json:"viewer,omitempty"` // whether it can be viewed
	Agent      bool       `json:"agent,omitempty"`  // whether its guest has one
	Ping       bool       `json:"ping,omitempty"`
	Reset      bool       `json:"reset,omitempty"`
	Stop       bool       `json:"stop,omitempty"`
	Kill       bool       `json:"kill,omitempty"`
}

// Click is a press and release of a button.
type Click struct {
	X, Y   int
	Button vm.Button
	Twice  bool
}

type reply struct {
	Error      string  `json:"error,omitempty"`
	Screenshot []byte  `json:"screenshot,omitempty"`
	Status     *Status `json:"status,omitempty"`
}

// Status is what a running desktop says of itself.
type Status struct {
	PID    int             `json:"pid"` // of its supervisor
	Uptime int64           `json:"uptime_seconds"`
	Net    *network.Report `json:"network,omitempty"`
	// CPU is the time that its processes have had since the boot; two of these, and
	// their times, tell how busy it is. Memory is what it has of the host's, in bytes.
	CPU    time.Duration `json:"cpu_ns,omitempty"`
	Memory int64         `json:"memory_bytes,omitempty"`
	// Booted is how it was booted.
	Booted Options `json:"booted"`
}

func (s *supervisor) serve(ctx context.Context, conn net.Conn, scarce bool) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return
	}
	switch {
	case kind[0] == kindControl:
		s.answer(ctx, conn)
	case kind[0] == kindViewer && !scarce:
		s.view(conn)
	case kind[0] == kindAgent && !scarce:
		s.join(ctx, conn)
	}
}

// view carries a viewer's stream to the machine and back.
func (s *supervisor) view(conn net.Conn) {
	screen, err := s.viewer()
	if err != nil {
		return
	}
	defer screen.Close()
	go func() {
		_, _ = io.Copy(screen, conn)
		screen.Close()
	}()
	_, _ = io.Copy(conn, screen)
}

// agentTimeout is how long somebody who asks for the guest's agent waits for one.
const agentTimeout = 10 * time.Second

// agent opens a stream to the guest's agent.
func (s *supervisor) agent(ctx context.Context) (net.Conn, error) {
	d, ok := s.machine.(vm.Dialer)
	if !ok {
		return nil, fmt.Errorf("%w: its driver has no way to its guest but the network", vm.ErrUnsupported)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, agentTimeout, fmt.Errorf(
		"no agent of lumina's has answered in its guest for %v: one is in systems of lumina's images (lumina images export), once they are up", agentTimeout))
	defer cancel()
	return d.Dial(ctx)
}

// join carries a stream to the agent and back. A client that goes drops the agent's
// stream, which cancels the operation.
func (s *supervisor) join(ctx context.Context, conn net.Conn) {
	guest, err := s.agent(ctx)
	if err != nil {
		return
	}
	defer guest.Close()
	go func() {
		// An agent that drops the stream may have said why: that is still to be read.
		var ours *net.OpError
		if _, err := io.Copy(guest, conn); err == nil || errors.As(err, &ours) {
			guest.Close()
		}
	}()
	_, _ = io.Copy(conn, guest)
}

func (s *supervisor) answer(ctx context.Context, conn net.Conn) {
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&req); err != nil {
		return
	}
	r, err := s.do(ctx, req)
	if err != nil {
		r.Error = strings.TrimSpace(err.Error())
	}
	// A client that has gone needs no answer.
	_ = json.NewEncoder(conn).Encode(r)
}

func (s *supervisor) do(ctx context.Context, req request) (r reply, err error) {
	switch {
	case req.Screenshot:
		var screen vm.Screen
		if screen, err = ability[vm.Screen](s); err == nil {
			r.Screenshot, err = screen.Screenshot()
		}
	case len(req.Chords) > 0:
		err = s.press(ctx, req.Chords)
	case req.Click != nil:
		err = s.click(ctx, *req.Click)
	case len(req.Serial) > 0:
		if port, ok := s.machine.(vm.SerialInput); ok {
			err = port.WriteSerial(req.Serial)
		} else {
			err = fmt.Errorf("%w: its driver's serial port takes no input", vm.ErrUnsupported)
		}
	case req.Viewer:
		var screen net.Conn
		if screen, err = s.viewer(); err == nil {
			err = screen.Close()
		}
	case req.Agent:
		var guest net.Conn
		if guest, err = s.agent(ctx); err == nil {
			err = guest.Close()
		}
	case req.Ping:
	case req.Reset:
		if button, ok := s.machine.(vm.Resetter); ok {
			err = button.Reset()
		} else {
			err = fmt.Errorf("%w: its machine has no reset button; lumina desktop restart --force ends it and boots it again", vm.ErrUnsupported)
		}
	case req.Stop || req.Kill:
		select {
		case s.stop <- req.Kill:
		case <-s.gone:
		}
		<-s.gone
	case req.Status:
		r.Status = &Status{PID: os.Getpid(), Uptime: int64(time.Since(s.started).Seconds()), Booted: s.options}
		if meter, ok := s.machine.(vm.Meter); ok {
			if u, err := meter.Usage(); err == nil {
				r.Status.CPU, r.Status.Memory = u.CPU, u.Memory
			}
		}
		if n := s.network; n != nil {
			r.Status.Net = n.Report()
		}
	default:
		err = errors.New("an unknown request")
	}
	return r, err
}
