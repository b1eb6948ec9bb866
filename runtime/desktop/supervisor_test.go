package desktop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/supervise"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// machines is a driver of desktops in memory.
type machines struct {
	firmware
	mu   sync.Mutex
	all  []*machine
	none bool // they can only run
}

func (*machines) Start(context.Context, vm.Spec) (vm.Machine, error) { return nil, vm.ErrUnsupported }

func (d *machines) CheckTPM(string) error { return nil }

func (d *machines) StartDesktop(ctx context.Context, spec vm.DesktopSpec) (vm.Desktop, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &machine{spec: spec, done: make(chan struct{}), gone: make(chan struct{})}
	context.AfterFunc(ctx, m.Kill)
	d.all = append(d.all, m)
	if d.none {
		return struct{ vm.Desktop }{m}, nil
	}
	return m, nil
}

func (d *machines) last() *machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[len(d.all)-1]
}

// machine is one of them. Its guest powers off when it is told to.
type machine struct {
	spec   vm.DesktopSpec
	once   sync.Once
	done   chan struct{}
	mu     sync.Mutex
	resets int
	keys   []string
	serial string
	gone   chan struct{} // closed when a stream to the agent has ended
}

func (m *machine) Kill()                 { m.once.Do(func() { close(m.done) }) }
func (m *machine) Done() <-chan struct{} { return m.done }
func (m *machine) Err() error            { return vm.ErrEnded }

func (m *machine) PowerButton() error {
	m.Kill()
	return nil
}

func (m *machine) Reset() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resets++
	return nil
}

func (m *machine) Screenshot() ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1280, 800)))
	return b.Bytes(), err
}

func (m *machine) Usage() (vm.Usage, error) {
	return vm.Usage{CPU: 3 * time.Second, Memory: 7 << 20}, nil
}

func (m *machine) Key(k vm.Key, down bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, fmt.Sprint(k, down))
	return nil
}

func (m *machine) WriteSerial(p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial += string(p)
	return nil
}

func (m *machine) Point(int, int, vm.Button, bool) error { return nil }

// Dial reaches an agent that repeats what it is told.
func (m *machine) Dial(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		in := bufio.NewReader(there)
		line, _ := in.ReadString('\n')
		_, _ = io.WriteString(there, line)
		if _, err := in.ReadByte(); err != nil && line != "" {
			close(m.gone)
		}
	}()
	return here, nil
}

// supervised runs a desktop in this process until the test ends.
func supervised(t *testing.T, s *Store, d *machines, name string) *Client {
	t.Helper()
	home := strings.TrimSuffix(s.dir, "/desktop-vms")
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		_ = Supervise(ctx, Options{Home: home, ID: name, Driver: d}, func(err error) { ready <- err })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	c, err := Open(home, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSupervisor(t *testing.T) {
	ctx := t.Context()
	s, d := NewStore(t.TempDir()), &machines{}
	r := Request{Manifest: Manifest{Name: "a", Architecture: "amd64", Network: "none", DiskSize: 1 << 20, Variant: asksForSecurity}}
	if err := r.Secure(d); err != nil {
		t.Fatal(err)
	}
	m, err := s.Create(ctx, d, r.Manifest, "")
	if err != nil {
		t.Fatal(err)
	}
	c := supervised(t, s, d, "a")
	if spec := d.last().spec; !spec.SecureBoot || spec.TPM == nil {
		t.Errorf("Windows 11 is without: %+v", spec)
	}
	status, err := c.Status(ctx)
	if err != nil || status.PID != os.Getpid() || status.CPU != 3*time.Second || status.Memory != 7<<20 || status.Booted.ID != "a" {
		t.Errorf("%+v, %v", status, err)
	}
	if f := s.Figures(ctx, m); len(f) != 1 || !f[0].Running || f[0].Silent || f[0].Status == nil || f[0].Disk == 0 {
		t.Errorf("%+v", f)
	}
	if err := c.Reset(ctx); err != nil || d.last().resets != 1 {
		t.Errorf("%d resets, %v", d.last().resets, err)
	}
	long := bytes.Repeat([]byte("é\r\x03"), maxSerialInput)
	if err := c.TypeSerial(ctx, long); err != nil || d.last().serial != string(long) {
		t.Errorf("the serial port got %d of %d bytes, %v", len(d.last().serial), len(long), err)
	}
	conn, err := c.dialAgent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" || err != nil {
		t.Errorf("the agent said %q, %v", line, err)
	}
	conn.Close()
	select {
	case <-d.last().gone: // what it runs ends with its client
	case <-time.After(time.Minute):
		t.Error("the agent is not told that its client has gone")
	}
	if err := s.Remove("a"); !errors.Is(err, ErrRunning) {
		t.Errorf("removed while it runs: %v", err)
	}
	if err := c.Stop(ctx, false); err != nil {
		t.Fatal(err)
	}
	// The last screen is there when it has ended.
	b, err := os.ReadFile(s.PictureFile(m))
	if err != nil {
		t.Fatal(err)
	}
	if size, err := png.DecodeConfig(bytes.NewReader(b)); err != nil || size.Width != 480 || size.Height != 300 {
		t.Errorf("the picture: %+v, %v", size, err)
	}
	if f := s.Figures(ctx, m); f[0].Running || f[0].Status != nil {
		t.Errorf("once it has ended: %+v", f)
	}
	for what, err := range map[string]error{"stop": c.Stop(ctx, false), "force": c.Stop(ctx, true), "reset": c.Reset(ctx)} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s, once it has ended: %v", what, err)
		}
	}
}

// What a driver cannot do is said, and with what remedy.
func TestSupervisorOfLess(t *testing.T) {
	ctx := t.Context()
	s, d := NewStore(t.TempDir()), &machines{none: true}
	if _, err := s.Create(ctx, d, Manifest{Name: "a", Architecture: "amd64", Network: "none", DiskSize: 1 << 20}, ""); err != nil {
		t.Fatal(err)
	}
	c := supervised(t, s, d, "a")
	if err := c.Reset(ctx); err == nil || !strings.Contains(err.Error(), "restart --force") {
		t.Errorf("reset: %v", err)
	}
	if err := c.TypeSerial(ctx, []byte("a")); err == nil || !strings.Contains(err.Error(), "serial port takes no input") {
		t.Errorf("the serial port: %v", err)
	}
	if _, err := c.dialAgent(ctx); err == nil || !strings.Contains(err.Error(), "no way to its guest") {
		t.Errorf("exec: %v", err)
	}
	tpm := true
	r := Request{Manifest: Manifest{Variant: asksForSecurity}}
	if err := r.Secure(firmware{}); err != nil || r.TPM || r.SecureBoot {
		t.Errorf("Windows 11 where there is no TPM: %+v, %v", r, err)
	}
	r.WithTPM = &tpm
	if err := r.Secure(firmware{}); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("a TPM where there is none: %v", err)
	}
}

// silentSupervisor makes this test's program a process that runs a desktop and does not
// answer.
const silentSupervisor = "LUMINA_TEST_SILENT_SUPERVISOR"

func TestMain(m *testing.M) {
	home := os.Getenv(silentSupervisor)
	if home == "" {
		os.Exit(m.Run())
	}
	s := NewStore(home)
	a, err := s.Find("a")
	if err != nil {
		panic(err)
	}
	lock, err := s.hold(a)
	if err == nil {
		err = names(lock)
	}
	if err == nil && os.Getenv("LUMINA_TEST_LISTENS") != "" {
		var l net.Listener
		l, err = supervise.Listen(s.Path(a))
		defer runtime.KeepAlive(l)
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("holds")
	for {
		time.Sleep(time.Hour) // select{} would be a deadlock, which ends the process
	}
}

// A desktop whose process is stopped is told of within seconds, and ends by force,
// whether that process had come as far as to listen or not.
func TestSilentSupervisor(t *testing.T) {
	for name, listens := range map[string]bool{"that listens": true, "that does not yet": false} {
		t.Run(name, func(t *testing.T) {
			if listens && testing.Short() {
				t.Skip("with -short: it waits for deadlines, 15 s")
			}
			t.Parallel()
			home := t.TempDir()
			s := NewStore(home)
			m := create(t, s, "a")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), silentSupervisor+"="+home)
			if listens {
				cmd.Env = append(cmd.Env, "LUMINA_TEST_LISTENS=1")
			}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "holds\n" {
				t.Fatalf("%q, %v", line, err)
			}
			go func() { ended <- cmd.Wait() }()
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			c, err := Open(home, "a")
			if err != nil {
				t.Fatal(err)
			}
			if f := s.Figures(t.Context(), m); !f[0].Running || f[0].Silent != listens {
				t.Errorf("%+v", f[0])
			}
			if _, err := c.Status(t.Context()); listens && (!errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "stop --force a")) {
				t.Errorf("asked: %v", err)
			}
			if err := c.Stop(t.Context(), true); err != nil {
				t.Errorf("by force: %v", err)
			}
			if <-ended; s.Running(m) {
				t.Error("it runs still")
			}
			if err := c.Stop(t.Context(), true); !errors.Is(err, ErrNotRunning) {
				t.Errorf("again: %v", err)
			}
		})
	}
}
