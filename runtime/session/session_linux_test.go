package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// These tests start real supervisors, whose VMs are in their memory: this program,
// called so. SIGUSR1 crashes the VM of one, SIGUSR2 stops it.
const (
	supervise = "__supervise"
	silent    = "silent"  // its guest never answers
	starter   = "__start" // who starts such a session, in a state directory
)

func TestMain(m *testing.M) {
	fake := &vmtest.Fake{}
	if len(os.Args) == 3 && os.Args[1] == starter {
		_, _ = session.Start(context.Background(), os.Args[0], []string{supervise, silent}, slow(os.Args[2]))
		os.Exit(1)
	}
	if len(os.Args) < 2 || os.Args[1] != supervise {
		os.Exit(m.Run())
	}
	fake.Silent = len(os.Args) > 2 && os.Args[2] == silent
	silence := make(chan os.Signal, 1)
	signal.Notify(silence, syscall.SIGUSR2)
	go func() {
		<-silence
		fake.Machines()[0].Silence()
	}()
	crash := make(chan os.Signal, 1)
	signal.Notify(crash, syscall.SIGUSR1)
	go func() {
		<-crash
		machine := fake.Machines()[0]
		machine.Print("Kernel panic \x1b[2J- not syncing\n")
		machine.Crash("the test says so")
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if session.Main(ctx, os.Stdin, fake) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// newHome makes a state directory with an image.
func newHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	err := image.NewStore(filepath.Join(home, "images")).Install(t.Context(), "img", func(dir string) error {
		img := &image.Image{Schema: image.Schema, Architecture: "amd64", Created: time.Now(), Files: map[string]image.File{}}
		for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
			if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 4096), 0o600); err != nil {
				return err
			}
			f, err := image.Digest(t.Context(), filepath.Join(dir, name))
			if err != nil {
				return err
			}
			img.Files[name] = f
		}
		return img.Write(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	return home
}

func options(home string) session.Options {
	return session.Options{Home: home, Driver: &vmtest.Fake{}, VM: runtime.VMOptions{Image: "img", Network: network.ModeNone, DiskSize: 16 << 20,
		NoTemplate: true, DiskReserve: runtime.NoDiskReserve}}
}

// slow is of a session whose boot may take minutes.
func slow(home string) session.Options {
	o := options(home)
	o.Name, o.VM.Init = "slow", image.InitSystemd
	return o
}

func start(t *testing.T, o session.Options) *session.Session {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.Start(t.Context(), program, []string{supervise}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = session.Stop(context.Background(), o.Home, s.Info.SID, true) })
	return s
}

// echo runs a command in a session.
func echo(ctx context.Context, s *session.Session) (string, error) {
	var out bytes.Buffer
	_, err := s.Exec(ctx, runtime.Command{Shell: "echo hello", Stdio: runtime.Stdio{Stdout: &out}})
	return out.String(), err
}

func kind(err error) runtime.ErrorKind {
	var e *runtime.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// only returns the status of the one session that there is.
func only(t *testing.T, home string) *session.Status {
	t.Helper()
	all, err := session.List(t.Context(), home)
	if err != nil || len(all) != 1 {
		t.Fatalf("List() = %v, %v, want one", all, err)
	}
	return all[0]
}

func TestNames(t *testing.T) {
	home := newHome(t)
	o := options(home)
	o.Name, o.Labels = "web", map[string]string{"team": "a"}
	s := start(t, o)
	for _, id := range []string{s.Info.SID, s.Info.SID[:7], "web", `{"sid":"` + s.Info.SID + `"}`, `{"sid": "` + s.Info.SID + `", "name": "web"}` + "\n", `{"sid":"web"}`} {
		found, err := session.Open(home, id)
		if err != nil || found.Info.SID != s.Info.SID {
			t.Errorf("Open(%q): %v", id, err)
			continue
		}
		if out, err := echo(t.Context(), found); out != "hello\n" {
			t.Errorf("exec by %q = %q, %v", id, out, err)
		}
	}
	for _, id := range []string{"", ".", "..", "/", "we", "webs", "WEB", "{}", `{"sid":""}`, `{"sid":"web"`, "web:", "web\n", "../" + s.Info.SID, strings.Repeat("f", 500),
		"00000000-0000-4000-8000-000000000000"} {
		if _, err := session.Open(home, id); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%q): %v", id, err)
		}
		if sid, err := session.Stop(t.Context(), home, id, false); err == nil || (sid != "") != (len(id) == 36) {
			t.Errorf("Stop(%q) = %q, %v", id, sid, err)
		}
	}
	program, _ := os.Executable()
	if _, err := session.Start(t.Context(), program, []string{supervise}, o); !errors.Is(err, session.ErrNameTaken) {
		t.Errorf("a second one of the name: %v", err)
	}
	if got := only(t, home); got.Name != "web" || got.Labels["team"] != "a" || got.State != session.Running {
		t.Errorf("List() = %+v", got)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := start(t, o).Stop(t.Context()); err != nil { // the name is free again
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(home, "sessions")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "Web_1.a-b": true, "7": true, strings.Repeat("a", 128): true,
		"": false, "-a": false, ".a": false, "a b": false, "a/b": false, "a:b": false, "ä": false, "a\n": false, strings.Repeat("a", 129): false,
		"00000000-0000-4000-8000-000000000000": false} {
		if err := session.CheckName(name); (err == nil) != want {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

func TestFilter(t *testing.T) {
	web := &session.Status{Name: "web-1", Image: "debian", State: session.Running, Labels: map[string]string{"team": "a", "ci": ""}}
	for filter, want := range map[string]bool{
		"": true, "name=web": true, "name=^web$": false, "name=^web-1$": true, "name=db": false, "name=db,name=web": true,
		"label=team": true, "label=team=a": true, "label=team=b": false, "label=ci": true, "label=team=a,label=none": false,
		"image=debian": true, "image=deb": false, "status=running": true, "status=crashed": false, "status=crashed,status=running": true,
		"name=web,status=crashed": false,
	} {
		var all []string
		if filter != "" {
			all = strings.Split(filter, ",")
		}
		f, err := session.ParseFilter(all)
		if err != nil || f.Match(web) != want {
			t.Errorf("%q: %v, %v", filter, f.Match(web), err)
		}
	}
	for _, bad := range []string{"name", "name=", "=x", "color=red", "status=up", "name=("} {
		if _, err := session.ParseFilter([]string{bad}); err == nil {
			t.Errorf("filter %q is none", bad)
		}
	}
}

// After a crash, everybody is told what happened until the session is stopped.
func TestCrash(t *testing.T) {
	home := newHome(t)
	s := start(t, options(home))
	ended := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		_, err := s.Exec(t.Context(), runtime.Command{Shell: "echo up; exec sleep 600", Stdio: runtime.Stdio{Stdout: closer(running)}})
		ended <- err
	}()
	<-running
	if err := syscall.Kill(s.Info.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; kind(err) != runtime.VMCrashed || !strings.Contains(err.Error(), "the test says so") {
		t.Errorf("the command that was running: %v", err)
	}
	polltest.True(t, "the crash is listed", func() bool { return only(t, home).State == session.Crashed })
	for range 2 { // asking changes nothing
		if got := only(t, home); !strings.Contains(got.Crash.Message, "the test says so") || !strings.Contains(got.Crash.Console, "Kernel panic") {
			t.Errorf("List() = %+v", got.Crash)
		}
		again, err := session.Open(home, s.Info.SID)
		if err == nil {
			_, err = echo(t.Context(), again)
		}
		if kind(err) != runtime.ConnectionFailed || !strings.Contains(err.Error(), "the test says so") || !strings.Contains(err.Error(), `Kernel panic \x1b[2J-`) {
			t.Errorf("a command afterwards: %v", err)
		}
	}
	if _, err := session.Stop(t.Context(), home, s.Info.SID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Stop(t.Context(), home, s.Info.SID, false); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a second stop: %v", err)
	}
}

// closer is a channel that is closed by the first Write.
func closer(c chan struct{}) writerFunc {
	var once sync.Once
	return func(p []byte) (int, error) {
		once.Do(func() { close(c) })
		return len(p), nil
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// states are those that the threads of a process are in, each once; "" of none.
func states(t *testing.T, pid int) string {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	all := ""
	for _, f := range files {
		b, err := os.ReadFile(f)
		if _, rest, ok := strings.Cut(string(b), ") "); err == nil && ok && !strings.Contains(all, rest[:1]) {
			all += rest[:1]
		}
	}
	return all
}

// Whoever lists and cleans meanwhile disturbs no start and no stop.
func TestRaces(t *testing.T) {
	home := newHome(t)
	ctx, cancel := context.WithCancel(t.Context())
	var watching, working sync.WaitGroup
	for _, do := range []func() error{
		func() error { _, err := session.List(ctx, home); return err },
		func() error { _, err := session.Clean(home); return err },
		func() error { session.Stale(home); return nil },
	} {
		watching.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	program, _ := os.Executable()
	for range 2 {
		working.Go(func() {
			for range 3 {
				s, err := session.Start(t.Context(), program, []string{supervise}, options(home))
				if err != nil {
					t.Errorf("a start: %v", err)
					return
				}
				if out, err := echo(t.Context(), s); out != "hello\n" {
					t.Errorf("a command: %q, %v", out, err)
				}
				if err := s.Stop(t.Context()); err != nil {
					t.Errorf("a stop: %v", err)
				}
			}
		})
	}
	working.Wait()
	cancel()
	watching.Wait()
	if entries, _ := os.ReadDir(filepath.Join(home, "sessions")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// Forwards come and go while the session runs; being connected to one is no use of
// the session.
func TestForwards(t *testing.T) {
	home := newHome(t)
	o := options(home)
	o.Forwards = []forward.Rule{{Protocol: forward.TCP, Guest: 1}}
	o.Name, o.TTL = "web", 2*time.Second
	s := start(t, o)
	first := only(t, home).Forwards
	if len(first) != 1 || first[0].Host == 0 {
		t.Fatalf("it forwards %v", first)
	}
	server, err := net.Listen("tcp4", "127.0.0.1:0") // the fake's guest is this host
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	rules, err := s.Forward(t.Context(), []forward.Rule{{Protocol: forward.TCP, Guest: uint16(server.Addr().(*net.TCPAddr).Port)}}, first)
	if err != nil || len(rules) != 1 {
		t.Fatalf("Forward() = %v, %v", rules, err)
	}
	if _, err := s.Forward(t.Context(), nil, first); err == nil {
		t.Error("a forward can be removed twice")
	}
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", rules[0].Host))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx); err != nil {
		t.Errorf("the session did not end after its TTL: %v", err)
	}
	// Who asks after it is told; a stop of it is one of a session that has gone.
	polltest.Until(t, func() error {
		all, err := session.List(ctx, home)
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("%d sessions are listed", len(all))
		}
		return err
	})
	for _, id := range []string{"web", s.Info.SID, s.Info.SID[:6]} {
		if _, err := session.Open(home, id); !errors.Is(err, session.ErrNotFound) || !strings.Contains(err.Error(), "its ttl of 2s ended it at ") {
			t.Errorf("Open(%q) = %v", id, err)
		}
	}
	if _, err := session.Open(home, "other"); !errors.Is(err, session.ErrNotFound) || strings.Contains(err.Error(), "ttl") {
		t.Errorf("Open of one that never was: %v", err)
	}
}

// A supervisor that has no descriptors left can be asked and stopped.
func TestScarceDescriptors(t *testing.T) {
	home := newHome(t)
	s := start(t, options(home))
	highest := uint64(0)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Info.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		n, _ := strconv.ParseUint(f.Name(), 10, 64)
		highest = max(highest, n)
	}
	if err := unix.Prlimit(s.Info.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: highest + 1, Max: highest + 1}, nil); err != nil {
		t.Fatal(err)
	}
	// Others take what is free.
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range 32 {
		c, err := net.Dial("unix", filepath.Join(home, "sessions", s.Info.SID, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("a"))
		held = append(held, c)
	}
	if got := only(t, home); got.State != session.Running {
		t.Errorf("List() = %+v", got)
	}
	if _, err := session.Stop(t.Context(), home, s.Info.SID, false); err != nil {
		t.Errorf("stop: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(home, "sessions")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// A supervisor is not given what its caller's environment holds.
func TestEnvironment(t *testing.T) {
	t.Setenv("GITHUB_TOKEN", "a secret")
	t.Setenv("LUMINA_KEY_PASSWORD", "a secret")
	s := start(t, options(newHome(t)))
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.Info.PID))
	if err != nil || bytes.Contains(b, []byte("secret")) || !bytes.Contains(b, []byte("PATH=")) {
		t.Errorf("environment %q, %v", b, err)
	}
}
