package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// inMemory is the whole command line in this process, over a driver that is given to
// it, and so are the supervisors of its sessions.
type inMemory struct {
	t      *testing.T
	home   string
	driver vm.Driver
	env    map[string]string
	// templates is how many were asked for; they are made at once.
	templates   int
	supervisors sync.WaitGroup
	ctx         context.Context // of the supervisors
}

// newInMemory is one over a fake, with an image called img, whose guests run on this
// host. What it started is gone when the test ends.
func newInMemory(t *testing.T, fake *vmtest.Fake) *inMemory {
	t.Helper()
	home := t.TempDir()
	m := newCommandLine(t, home, fake)
	config := image.Config{WorkingDir: t.TempDir(), Env: []string{"FROM=image"}, Cmd: []string{"echo", "of the image"}}
	if err := vmtest.InstallImage(t.Context(), home, "img", config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i, machine := range fake.Machines() {
			select {
			case <-machine.Done():
			case <-time.After(10 * time.Second):
				t.Errorf("machine %d of %d runs on", i+1, len(fake.Machines()))
			}
		}
		for _, dir := range []string{"runs", "sessions"} {
			if left, _ := os.ReadDir(filepath.Join(home, dir)); len(left) > 0 {
				t.Errorf("left in %s: %v", dir, left)
			}
		}
	})
	return m
}

// newCommandLine is one over any driver and state directory.
func newCommandLine(t *testing.T, home string, driver vm.Driver) *inMemory {
	ctx, cancel := context.WithCancel(context.Background())
	m := &inMemory{t: t, home: home, driver: driver, ctx: ctx, env: map[string]string{
		"LUMINA_HOME": home, "LUMINA_MEMORY": "64MB", "LUMINA_DISK_SIZE": "16MB", "LUMINA_DISK_RESERVE": "0", "LUMINA_NETWORK": "none",
	}}
	t.Cleanup(func() {
		cancel()
		m.supervisors.Wait()
	})
	return m
}

// environment is that of one call, with files as its streams.
func (m *inMemory) environment(stdin, stdout, stderr *os.File, args ...string) *environment {
	return &environment{
		program: "lumina", args: args, stdin: stdin, stdout: stdout, stderr: stderr,
		ctx:       m.ctx,
		getenv:    func(name string) string { return m.env[name] },
		lookupEnv: func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
		driver:    func() (vm.Driver, error) { return m.driver, nil },
		session:   m.startSession,
		template: func(o runtime.VMOptions) error {
			m.templates++
			input, err := json.Marshal(o)
			if err != nil {
				return err
			}
			null := m.open(os.DevNull)
			if code := execute(m.t.Context(), m.environment(null, null, null, templateCommand, string(input))); code != 0 {
				return fmt.Errorf("%s ended with %d", templateCommand, code)
			}
			return nil
		},
	}
}

// startSession is session.Start without a process.
func (m *inMemory) startSession(_ context.Context, o session.Options) (*session.Session, error) {
	o.SID = name.UUID()
	if o.Port != nil {
		fd, err := syscall.Dup(int(o.Port.Fd()))
		if err != nil {
			return nil, err
		}
		o.VM.Member.Descriptor = uintptr(fd)
	}
	ready := make(chan error, 1)
	m.supervisors.Go(func() { _ = session.Supervise(m.ctx, o, func(err error) { ready <- err }) })
	if err := <-ready; err != nil {
		var e *runtime.Error
		if !errors.As(err, &e) {
			err = &runtime.Error{Kind: runtime.ConnectionFailed, Err: err}
		}
		return nil, err
	}
	return session.Open(m.home, o.SID)
}

func (m *inMemory) open(name string) *os.File {
	m.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { f.Close() })
	return f
}

// lumina calls the command line with nothing as its input.
func (m *inMemory) lumina(args ...string) result { return m.pipe("", args...) }

// pipe calls the command line with an input.
func (m *inMemory) pipe(input string, args ...string) result {
	m.t.Helper()
	return m.begin(m.t.Context(), input, args...).wait()
}

// call is a command line that runs.
type call struct {
	m              *inMemory
	stdout, stderr string // files
	code           chan int
}

// begin calls the command line, and does not wait for its end.
func (m *inMemory) begin(ctx context.Context, input string, args ...string) *call {
	m.t.Helper()
	dir := m.t.TempDir()
	stdin := os.DevNull
	if input != "" {
		stdin = filepath.Join(dir, "stdin")
		if err := os.WriteFile(stdin, []byte(input), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	c := &call{m, filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr"), make(chan int, 1)}
	env := m.environment(m.open(stdin), m.open(c.stdout), m.open(c.stderr), args...)
	go func() { c.code <- execute(ctx, env) }()
	return c
}

// printed waits until there is this among what is printed, and returns all of that.
func (c *call) printed(what string) (all string) {
	c.m.t.Helper()
	polltest.True(c.m.t, fmt.Sprintf("%q is printed", what), func() bool {
		all = string(readFile(c.m.t, c.stdout)) + string(readFile(c.m.t, c.stderr))
		return strings.Contains(all, what)
	})
	return all
}

// wait returns how it ended.
func (c *call) wait() result {
	c.m.t.Helper()
	r := result{code: <-c.code}
	r.stdout, r.stderr = string(readFile(c.m.t, c.stdout)), string(readFile(c.m.t, c.stderr))
	_ = json.Unmarshal([]byte(r.stdout), &r)
	return r
}

// started is the SID of a new session.
func (m *inMemory) started(args ...string) string {
	m.t.Helper()
	sid := m.lumina(append([]string{"session", "start", "--image", "img"}, args...)...).succeeded(m.t).SID
	if sid == "" {
		m.t.Fatal("no sid")
	}
	return sid
}

// crashing has a fake's machines crash at the n-th stream that is opened to each.
func crashing(at int) func(*vmtest.Machine, int) {
	return func(m *vmtest.Machine, n int) {
		if n == at {
			m.Print("a last word\n")
			m.Crash("the test says so")
		}
	}
}

// The command line works over a driver that it is given.
func TestInMemoryRun(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	t.Setenv("LUMINA_TEST_SECRET", "not passed on") // what passes is what the flags say
	m.env["LUMINA_TEMPLATE"], m.env["PASSED"] = "0", "from here"
	for _, tt := range []struct {
		name   string
		args   []string
		input  string
		code   int
		stdout string
	}{
		{"a shell's command", []string{"echo $((6 * 7))"}, "", 0, "42\n"},
		{"a program", []string{"--", "printf", "%s", "a b"}, "", 0, "a b"},
		{"the image's command", nil, "", 0, "of the image\n"},
		{"an entrypoint", []string{"--entrypoint", "echo", "--", "x"}, "", 0, "x\n"},
		{"the exit code", []string{"exit 7"}, "", 7, ""},
		{"killed by a signal", []string{"kill -9 $$"}, "", 137, ""},
		{"standard input", []string{"cat"}, "in\n", 0, "in\n"},
		{"variables", []string{"-e", "A=1", "-e", "PASSED", "echo $A $PASSED $FROM $LUMINA_TEST_SECRET"}, "", 0, "1 from here image\n"},
		{"the working directory", []string{"-w", "/tmp", "pwd"}, "", 0, "/tmp\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := m.pipe(tt.input, append([]string{"run", "--image", "img"}, tt.args...)...)
			if r.code != tt.code || r.Stdout != tt.stdout || r.ExitCode == nil || *r.ExitCode != tt.code {
				t.Errorf("exit code %d, want %d; %s %s", r.code, tt.code, r.stdout, r.stderr)
			}
		})
	}
	m.env["LUMINA_FORMAT"] = "text"
	if r := m.lumina("run", "--image", "img", "echo out; echo err >&2; exit 3"); r.code != 3 || r.stdout != "out\n" || r.stderr != "err\n" {
		t.Errorf("as text: %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	delete(m.env, "LUMINA_FORMAT")
	m.env["LUMINA_OUTPUT"] = "ndjson"
	if r := m.lumina("run", "--image", "img", "echo out"); r.code != 0 || !strings.HasPrefix(r.stdout, `{"stream":"stdout","data":"out\n"}`+"\n"+`{"exit_code":0,`) {
		t.Errorf("as lines of JSON: %d, %s", r.code, r.stdout)
	}
	delete(m.env, "LUMINA_OUTPUT")
	m.env["LUMINA_BOOT_TRACE"] = "1"
	if r := m.lumina("run", "--image", "img", "true").succeeded(t); !strings.Contains(r.stderr, "boot: cold, since templates are switched off") {
		t.Errorf("trace: %s", r.stderr)
	}
	if r := m.lumina("pool", "run", "--image", "img", "--size", "2", "--count", "3", "echo $LUMINA_RUN; exit $LUMINA_RUN"); r.code != 1 || strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stdout, `"exit_code":2`) {
		t.Errorf("a pool: %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

// Bad usage ends before a VM starts.
func TestInMemoryRefuses(t *testing.T) {
	fake := &vmtest.Fake{}
	m := newInMemory(t, fake)
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"run --image img --memory 1KB true", exitUsage, "memory"},
		{"run --image img --cpus 0 true", exitUsage, "cpus"},
		{"run --image img --network moon true", exitUsage, "network"},
		{"run --image img -v data true", exitUsage, "NAME:PATH"},
		{"run --image img -v data:/a -v data:/b true", exitUsage, `cannot be at both "/a" and "/b"`},
		{"session start --image img -v data:/a:ro -v data:/b", exitUsage, "cannot be at both"},
		{"ps -f color=red", exitUsage, "filter"},
		{"ps --format json", exitUsage, "--json"},
		{"images ls --format json", exitUsage, "--json"},
		{"vm ls", exitUsage, "it is lumina session"},
		{"run --image img -p x true", exitUsage, "x"},
		{"run --image img --copy /etc true", exitUsage, "LOCAL:REMOTE"},
		{"run --image img --copy /not-there:/x true", exitUsage, "/not-there"},
		{"run --image img -t true", exitUsage, "terminal"},
		{"run --image img a b", exitUsage, "one string"},
		{"run --image other --pull never true", exitFailure, "other"},
		{"run --image img -e =x true", exitUsage, "NAME"},
		{"pool run --image img --size 0 true", exitUsage, "size"},
		{"session start --image img --name -x", exitUsage, "-x"},
		{"session start --image img -e A=1", exitUsage, "--run"},
		{"session start --image img --label =x", exitUsage, "label"},
		{"session stop none", exitFailure, "no such session"},
		{"exec none true", exitFailure, "no such session"},
		{"exec -d -t none true", exitUsage, "exclude"},
		{"cp /etc/hostname none:/x", exitFailure, "no such session"},
		{"cp /etc/hostname /x", exitUsage, "SID"},
		{"logs none id", exitFailure, "no such session"},
		{"kill none id", exitFailure, "no such session"},
		{"kill --signal MOON none id", exitUsage, "not a signal"},
		{"ps none", exitFailure, "no such session"},
		{"ps --denied", exitUsage, "session"},
		{"ps --filter color=red", exitUsage, "filter"},
		{"session forward none 1", exitFailure, "no such session"},
		{"network run /not-there", exitUsage, "/not-there"},
		// What docker's users write.
		{"run --image img --gpus all true", exitUsage, "none of this host's GPUs"},
		{"run --image img --restart=always true", exitUsage, "nothing starts a VM again"},
		{"run --image img --cap-add SYS_ADMIN true", exitUsage, "a VM's root may do everything"},
		{"run --image img -P true", exitUsage, "-p HOST:GUEST"},
		{"run --image img -l a=b true", exitUsage, "session start --label"},
		{"run --image img --tmpfs /t true", exitUsage, "mount -t tmpfs"},
		{"run --image img --net host true", exitUsage, "write --network"},
		{"run --image img --network host true", exitUsage, "want nat, none"},
		{"run --image img -d true", exitUsage, "session start keeps a VM"},
		{"session start --image img --read-only", exitUsage, "end with it"},
		{"session start -d", exitUsage, "it is always so"},
		{"exec --privileged none true", exitUsage, "a VM's root"},
		{"run --image img --hostname a..b true", exitUsage, "hostname \"a..b\": want letters"},
		{"run --image img -h -x true", exitUsage, "hostname \"-x\""},
		{"run --init --image img", exitUsage, "want lumina or systemd"},
		{"run img true", exitUsage, "write --image img"},
		{"session start img", exitUsage, "--image IMAGE"},
		{"session forward add none 1:2", exitUsage, "SID FORWARD… adds"},
		{"kill -s MOON none 1", exitUsage, "a name such as TERM"},
		{"run --image img --json=maybe true", exitUsage, "want true or false"},
		{"cp /etc/hostname none:~/x", exitUsage, "none:/root/x"},
		{"cp none:~ .", exitUsage, "none:./~"},
		{"run --image img --copy /etc/hostname:~/x true", exitUsage, "/root/x"},
		{"run --image img --download ~/x:. true", exitUsage, "/root/x"},
		{"run true --json", exitUsage, "a command with its own flags"},
		{"exec none true --json", exitUsage, "a command with its own flags"},
		{"stop none", exitUsage, "it is lumina session stop SID"},
		{"image ls", exitUsage, "it is lumina images"},
		{"network ls", exitUsage, "it is lumina session list"},
		{"volume prune", exitUsage, "it is lumina volume remove"},
		{"pull debian:12", exitUsage, "run --image debian:12 fetches that"},
		{"build .", exitUsage, "it is lumina images create"},
	} {
		r := m.lumina(strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.stderr+r.Message, tt.says) || tt.code == exitUsage && (r.stdout != "" || strings.Count(r.stderr, "\n") != 1) {
			t.Errorf("lumina %s: exit code %d, want %d with %q; %s%s", tt.args, r.code, tt.code, tt.says, r.stdout, r.stderr)
		}
	}
	for _, args := range []string{"run -h", "run --image img -h", "session start -h", "run --help", "exec -h"} {
		if r := m.lumina(strings.Fields(args)...).succeeded(t); !strings.Contains(r.stdout, "Usage:") {
			t.Errorf("lumina %s: %s", args, r.stdout)
		}
	}
	for _, name := range []string{"LUMINA_TEMPLATE", "LUMINA_REHEARSE", "LUMINA_RAW_SOCKETS"} {
		m.env[name] = "no"
		if r := m.lumina("run", "--image", "img", "true"); r.code != exitUsage || r.stderr != "lumina: "+name+"=\"no\": want 0 or 1\n" {
			t.Errorf("%s=no: exit code %d, %s%s", name, r.code, r.stdout, r.stderr)
		}
		delete(m.env, name)
	}
	// What is wrong with a file that comes by a pipe is said of it, too.
	for _, args := range []string{"network run -", "recipe check -", "images create x --recipe -"} {
		if r := m.pipe("moon: 1\n", strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.stderr, "-:1: moon: there is no such field") {
			t.Errorf("lumina %s: exit code %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	if n := len(fake.Machines()); n != 0 {
		t.Errorf("%d VMs were started", n)
	}
	broken := newInMemory(t, fake)
	none := errors.New("no driver in this build")
	for _, args := range []string{"run --image img true", "session start --image img", "doctor", "clean", "pool run --image img true"} {
		null := broken.open(os.DevNull)
		said := broken.open(filepath.Join(t.TempDir(), "stderr"))
		env := broken.environment(null, said, said, strings.Fields(args)...)
		env.driver = func() (vm.Driver, error) { return nil, none }
		code := execute(t.Context(), env)
		if text, err := os.ReadFile(said.Name()); code != exitFailure || err != nil || !strings.Contains(string(text), none.Error()) {
			t.Errorf("lumina %s without a driver: %d, %s, %v", args, code, text, err)
		}
	}
}

// Whatever goes wrong with the VM of a run, the envelope says what and why.
func TestInMemoryRunFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fake  *vmtest.Fake
		args  []string
		code  int
		error string // of the envelope
		says  string
	}{
		{"the driver refuses", &vmtest.Fake{StartError: errors.New("no hypervisor")}, []string{"true"}, exitFailure, "connection_failed", "no hypervisor"},
		{"no init", &vmtest.Fake{EndBeforeAgent: true}, []string{"true"}, exitFailure, "connection_failed", "no init found"},
		{"its init refuses", &vmtest.Fake{ConfigureError: errors.New("no eth0")}, []string{"true"}, exitFailure, "connection_failed", "no eth0"},
		{"lost as it is configured", &vmtest.Fake{Dialing: crashing(1)}, []string{"true"}, exitFailure, "connection_failed", "a last word"},
		{"lost as the command is sent", &vmtest.Fake{Dialing: crashing(2)}, []string{"true"}, exitFailure, "connection_failed", "a last word"},
		{"lost as a file is copied in", &vmtest.Fake{Dialing: crashing(2)}, []string{"--copy", "/etc/hostname:/tmp/", "true"}, exitFailure, "connection_failed", "a last word"},
		{"no such program", &vmtest.Fake{}, []string{"--", "not-there"}, exitFailure, "connection_failed", "not-there"},
		{"the command takes too long", &vmtest.Fake{}, []string{"--timeout", "300ms", "echo begun; exec sleep 60"}, exitTimeout, "timeout", "300ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newInMemory(t, tt.fake)
			r := m.lumina(append([]string{"run", "--image", "img"}, tt.args...)...)
			if r.code != tt.code || r.Error != tt.error || !strings.Contains(r.Message, tt.says) || (r.PartialStdout != nil) != (tt.error != "connection_failed") || r.ExitCode != nil {
				t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
	t.Run("lost as a file is copied out", func(t *testing.T) {
		m := newInMemory(t, &vmtest.Fake{Dialing: crashing(3)})
		r := m.lumina("run", "--image", "img", "--download", "out:"+t.TempDir()+"/", "echo done")
		if r.code != exitFailure || r.Stdout != "done\n" || !strings.Contains(r.stdout, `"transfer_error"`) {
			t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("lost under its command", func(t *testing.T) {
		fake := &vmtest.Fake{}
		m := newInMemory(t, fake)
		m.env["LUMINA_OUTPUT"] = "ndjson"
		run := m.begin(t.Context(), "", "run", "--image", "img", "echo partial; exec sleep 60")
		run.printed("partial")
		fake.Machines()[0].Crash("the test says so")
		if r := run.wait(); r.code != exitFailure || !strings.Contains(r.stdout, `"error":"vm_crashed"`) || !strings.Contains(r.stdout, "the test says so") {
			t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("interrupted under its command", func(t *testing.T) {
		m := newInMemory(t, &vmtest.Fake{})
		m.env["LUMINA_FORMAT"] = "text"
		ctx, cancel := context.WithCancelCause(t.Context())
		run := m.begin(ctx, "", "run", "--image", "img", "echo begun; exec sleep 60")
		run.printed("begun")
		cancel(interrupted{syscall.SIGTERM})
		if r := run.wait(); r.code != 128+int(syscall.SIGTERM) {
			t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
		}
	})
}

// What a run copies and forwards.
func TestInMemoryRunCopiesAndForwards(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in"), "content")
	m.lumina("run", "--image", "img", "--copy", filepath.Join(dir, "in")+":guest-in", "--download", "guest-out:"+filepath.Join(dir, "out"),
		"tr a-z A-Z <guest-in >guest-out").succeeded(t)
	if got := string(readFile(t, filepath.Join(dir, "out"))); got != "CONTENT" {
		t.Errorf("the download is %q", got)
	}
	// The guest's service is one of this host's, as all of a fake's guest.
	service, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go serveOnce(service, "served\n")
	ended := filepath.Join(dir, "ended")
	_, port, _ := net.SplitHostPort(service.Addr().String())
	run := m.begin(t.Context(), "", "run", "--image", "img", "-p", port, "until [ -e "+ended+" ]; do sleep 0.01; done")
	var host int
	if n, _ := fmt.Sscanf(run.printed(" leads to the VM's port"), "lumina: 127.0.0.1:%d leads to", &host); n != 1 {
		t.Fatal("the forward's port is not told")
	}
	if got := ask(t, host); got != "served\n" {
		t.Errorf("the forward says %q", got)
	}
	write(t, ended, "")
	run.wait().succeeded(t)
}

// serveOnce answers each connection with text.
func serveOnce(l net.Listener, text string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte(text))
		conn.Close()
	}
}

// ask returns what a port of this host says.
func ask(t *testing.T, port int) string {
	t.Helper()
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, _ := conn.Read(b)
	return string(b[:n])
}
