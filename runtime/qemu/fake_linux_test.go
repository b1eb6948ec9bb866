package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	guest "github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// These tests start a QEMU that is this program: it speaks QMP, has a console, and
// the real agent on its serial port, and no guest. What it does wrong is said by
// fake=… on its kernel's command line.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "qemu-system-") {
		os.Exit(fakeQEMU(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakeTree puts this program where QEMU is looked for, and where whoever QEMU then is
// can read it.
func fakeTree(t *testing.T) *Driver {
	t.Helper()
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "bin")
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(bin, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(bin, machines["amd64"].binary), os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	d := New(Options{Accelerator: TCG})
	d.cacheDir = t.TempDir()
	return d
}

// fakeSpec is a machine whose QEMU behaves so.
func fakeSpec(t *testing.T, behaviour string) vm.Spec {
	t.Helper()
	spec, err := vmtest.Spec(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	spec.CommandLine = "fake=" + behaviour
	return spec
}

// restored are the behaviours of QEMUs that restore, by their numbers of CPUs.
var restored = map[string]string{"3": "refuses-getfd", "4": "mute"}

// fakeStart starts one that is killed when the test ends.
func fakeStart(t *testing.T, behaviour string) vm.Machine {
	t.Helper()
	m, err := fakeTree(t).Start(t.Context(), fakeSpec(t, behaviour))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		<-m.Done()
	})
	return m
}

func fakeConfigure(t *testing.T, m vm.Machine) {
	t.Helper()
	conn, err := m.Dial(t.Context())
	if err == nil {
		_, err = client.Configure(t.Context(), conn, &protocol.Configure{Hostname: "x", MachineID: strings.Repeat("0a", 16), Seed: []byte{1}, Template: true})
	}
	if err != nil {
		t.Fatalf("%v; console: %s", err, m.Console())
	}
}

func TestFakeMachine(t *testing.T) {
	m := fakeStart(t, "good")
	fakeConfigure(t, m)
	if out, err := vmtest.Shell(t.Context(), m, "echo $((6 * 7))"); out != "42\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if m.Err() != nil {
		t.Errorf("a machine that runs: %v", m.Err())
	}
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Shutdown(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if m.Err() != vm.ErrEnded || m.(vm.Reporter).Report() != "its guest powered off" {
		t.Errorf("it ended with %v, %q", m.Err(), m.(vm.Reporter).Report())
	}
	if m.Console() != "hello from the console\n" {
		t.Errorf("console: %q", m.Console())
	}
	if conn, err := m.Dial(t.Context()); !errors.Is(err, vm.ErrEnded) {
		t.Errorf("Dial after the end: %v, %v", conn, err)
	}
}

// However QEMU ends a machine that nobody wished to end, it is told.
func TestFakeMachineEnds(t *testing.T) {
	for behaviour, says := range map[string]string{
		"exits":  "QEMU ended: exit status 3\nqemu: no such luck",
		"stops":  "QEMU stopped the machine: KVM internal error. Suberror: 1",
		"panics": "the guest's kernel panicked",
		"halts":  "the guest's kernel has halted (reboot: System halted)",
	} {
		t.Run(behaviour, func(t *testing.T) {
			m := fakeStart(t, behaviour)
			<-m.Done()
			if err := m.Err(); !errors.Is(err, vm.ErrEnded) || err == vm.ErrEnded || !strings.HasPrefix(err.Error(), says) {
				t.Errorf("Err is %q, want %q", err, says)
			}
		})
	}
	t.Run("resets", func(t *testing.T) {
		m := fakeStart(t, "resets")
		<-m.Done()
		if m.Err() != vm.ErrEnded || m.(vm.Reporter).Report() != "its guest restarted the machine" {
			t.Errorf("%v, %q", m.Err(), m.(vm.Reporter).Report())
		}
	})
	t.Run("a disk fails", func(t *testing.T) {
		m := fakeStart(t, "full")
		<-m.Done()
		if got, want := m.(vm.Reporter).Report(), "the host's disk is full: writing to the VM's own disk failed, and the guest got the error (the first of 2 errors)"; got != want {
			t.Errorf("Report() = %q, want %q", got, want)
		}
	})
	t.Run("is killed", func(t *testing.T) {
		m := fakeStart(t, "silent")
		m.Kill()
		<-m.Done()
		if m.Err() != vm.ErrEnded {
			t.Errorf("%v", m.Err())
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, err := fakeTree(t).Start(ctx, fakeSpec(t, "silent"))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-m.Done()
		if m.Err() != vm.ErrEnded {
			t.Errorf("%v", m.Err())
		}
	})
}

// A machine is saved and goes on, and whatever QEMU refuses is told.
func TestFakeSnapshots(t *testing.T) {
	d := fakeTree(t)
	dir := t.TempDir()
	open := func(t *testing.T, name string, size int64) *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil && size > 0 {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	save := func(t *testing.T, behaviour, state string) error {
		spec := fakeSpec(t, behaviour)
		return d.Save(t.Context(), spec, vm.Snapshot{Memory: open(t, "memory", spec.Memory), State: open(t, state, 0)}, func(_ context.Context, m vm.Machine) error {
			fakeConfigure(t, m)
			return nil
		})
	}
	if id, err := d.Fingerprint(t.Context(), fakeSpec(t, "good")); err != nil || !strings.Contains(id, "tcg") {
		t.Errorf("Fingerprint() = %q, %v", id, err)
	}
	if err := save(t, "good", "state"); err != nil {
		t.Fatal(err)
	}
	for behaviour, says := range map[string]string{
		"refuses-getfd": "telling QEMU to getfd: no such descriptor",
		"fails-to-save": "QEMU could not save the machine",
		"dies-saving":   "QEMU ended while it saved the machine",
		"mute":          "QEMU ended: exit status 3\nqemu: no such luck",
	} {
		if err := save(t, behaviour, behaviour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("saving, %s: %v, want %q", behaviour, err, says)
		}
	}
	if err := d.Save(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "none", 0)}, func(context.Context, vm.Machine) error {
		return io.ErrUnexpectedEOF
	}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("saving what could not be prepared: %v", err)
	}
	m, err := d.Restore(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "state", 0)})
	if err != nil {
		t.Fatal(err)
	}
	fakeConfigure(t, m)
	if out, err := vmtest.Shell(t.Context(), m, "echo restored"); out != "restored\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	m.Kill()
	<-m.Done()
	for cpus, says := range map[string]string{
		"3": "telling QEMU to getfd: no such descriptor",
		"4": "QEMU ended: exit status 3\nqemu: no such luck",
	} {
		spec := fakeSpec(t, "good")
		spec.CPUs, err = strconv.Atoi(cpus)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Restore(t.Context(), spec, vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "state", 0)}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("restoring, %s: %v, want %q", restored[cpus], err, says)
		}
	}
	bad, err := d.Restore(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "empty", 0)})
	if err == nil {
		<-bad.Done()
		err = bad.Err()
	}
	if err == vm.ErrEnded || !strings.Contains(err.Error(), "not a state") {
		t.Errorf("restoring an empty state: %v", err)
	}
}

// doctor's look at QEMU and its accelerator.
func TestFakeCheck(t *testing.T) {
	d := fakeTree(t)
	check := func(spec vm.Spec, name string) vm.Check {
		t.Helper()
		all := d.Check(t.Context(), spec)
		i := slices.IndexFunc(all, func(c vm.Check) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("no check %q in %+v", name, all)
		}
		return all[i]
	}
	if c := check(vm.Spec{Arch: "amd64"}, "qemu"); c.Status != vm.CheckOK || !strings.Contains(c.Detail, "8.2.0") {
		t.Errorf("%+v", c)
	}
	if c := check(fakeSpec(t, "good"), "accelerator"); c.Status != vm.CheckWarn || !strings.Contains(c.Detail, "it was asked for") {
		t.Errorf("an accelerator that was asked for: %+v", c)
	}
	if c := check(vm.Spec{Arch: "arm64"}, "qemu"); c.Status != vm.CheckFail || !strings.Contains(c.Detail, "qemu-system-arm") {
		t.Errorf("another architecture's: %+v", c)
	}
	for version, old := range map[string]bool{
		"QEMU emulator version 7.1.0": true, "QEMU emulator version 7.2.9 (Debian)": false, "QEMU emulator version 10.0.0": false, "something else": false,
	} {
		if older(version) != old {
			t.Errorf("older(%q) = %t", version, !old)
		}
	}
	reads, writes := d.Installation()
	if !slices.ContainsFunc(reads, func(s string) bool { return strings.HasSuffix(s, "/"+machines["amd64"].binary) }) {
		t.Errorf("Installation() = %v, %v", reads, writes)
	}
	d.options.ControlGroup = "/sys/fs/cgroup/mine"
	if _, writes = d.Installation(); !slices.Equal(writes, []string{"/sys/fs/cgroup/mine"}) {
		t.Errorf("with a control group: %v", writes)
	}
	for name, want := range map[string]bool{"": true, "kvm": true, "hvf": true, "tcg": true, "KVM": false, "tcg,thread=multi": false} {
		if a, err := ParseAccelerator(name); (err == nil) != want || want && string(a) != name {
			t.Errorf("ParseAccelerator(%q) = %q, %v", name, a, err)
		}
	}
}

// QMP's replies, in the order and the form in which a QEMU that was taken over may send
// them.
func TestMonitor(t *testing.T) {
	for name, tt := range map[string]struct {
		says []string // a line each
		want string   // of the error; "" for none
	}{
		"good":                    {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"return":{},"id":2}`}, ""},
		"an event between":        {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"event":"RESUME"}`, `{"return":{},"id":2}`}, ""},
		"a late reply":            {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"return":{},"id":77}`, `{"return":{},"id":2}`}, ""},
		"an error":                {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"error":{"desc":"no"},"id":2}`}, "telling QEMU to cont: no"},
		"no JSON":                 {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `what?`}, "invalid character"},
		"a line that is too long": {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"x":"` + strings.Repeat("x", maxMessage) + `"}`}, "buffer full"},
		"no greeting":             {nil, "reading QEMU's greeting: EOF"},
		"an end":                  {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, file, err := socketpair.New(syscall.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			theirs, err := net.FileConn(file)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer theirs.(*net.UnixConn).CloseWrite()
				for _, line := range tt.says {
					if _, err := io.WriteString(theirs, line+"\n"); err != nil {
						return
					}
				}
			}()
			defer theirs.Close()
			m, err := openMonitor(ours)
			if err == nil {
				err = m.command(nil, "cont", nil)
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// fakeQEMU is the QEMU of these tests.
func fakeQEMU(args []string) int {
	if slices.Contains(args, "--version") {
		fmt.Println("QEMU emulator version 8.2.0 (fake)")
		return 0
	}
	after := func(what string) string {
		for i, a := range args {
			if a == what && i+1 < len(args) {
				return args[i+1]
			}
			if strings.HasPrefix(a, what) {
				return strings.TrimPrefix(a, what)
			}
		}
		return ""
	}
	line := ""
	if i := slices.Index(args, "-append"); i >= 0 {
		line = args[i+1]
	}
	_, behaviour, _ := strings.Cut(line, "fake=")
	behaviour, _, _ = strings.Cut(behaviour, " ")
	if line == "" { // no kernel is booted by what restores
		behaviour = restored[after("-smp")]
	}
	connect := func(id string) *net.UnixConn {
		fd, err := strconv.Atoi(after("socket,id=" + id + ",fd="))
		if err != nil {
			return nil
		}
		f := os.NewFile(uintptr(fd), id)
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			return nil
		}
		return conn.(*net.UnixConn)
	}
	config, err := os.ReadFile(after("-readconfig")) // waits, as QEMU's does
	if err != nil {
		return 4
	}
	_, monitor, _ := strings.Cut(string(config), "fd = ")
	args = append(args, "socket,id=qmp,fd="+strings.Trim(monitor, "\"\n"))
	q := &fake{behaviour: behaviour, qmp: connect("qmp"), port: connect("agent"), ended: make(chan int, 8), talks: make(chan struct{})}
	if q.qmp == nil || q.port == nil {
		return 4
	}
	fail := func() int {
		fmt.Fprintln(os.Stderr, "qemu: no such luck")
		return 3
	}
	if behaviour == "mute" || behaviour == "exits" {
		return fail()
	}
	go q.monitor()
	if !slices.Contains(args, "-incoming") {
		fmt.Println("hello from the console")
		go q.boot(false)
	}
	switch code := <-q.ended; code {
	case 3:
		return fail()
	default:
		return code
	}
}

// fake is one such QEMU.
type fake struct {
	behaviour string
	qmp, port *net.UnixConn
	ended     chan int
	talks     chan struct{} // closed when QMP is negotiated: no event is sent before
	state     *os.File      // of getfd
}

func (q *fake) say(format string, args ...any) { _, _ = fmt.Fprintf(q.qmp, format+"\n", args...) }

// boot is the guest: its init greets, and its agent serves.
func (q *fake) boot(restored bool) {
	switch q.behaviour {
	case "silent":
		return
	case "stops", "panics", "resets", "full":
		<-q.talks
	}
	switch q.behaviour {
	case "stops":
		fmt.Fprintln(os.Stderr, "qemu: warning: a warning\nKVM internal error. Suberror: 1\nmore of it")
		q.say(`{"event":"STOP"}`)
		return
	case "panics":
		q.say(`{"event":"GUEST_PANICKED","data":{"action":"pause"}}`)
		return
	case "halts":
		fmt.Print("[    1.000000] reboot: System")
		fmt.Println(" halted")
		return
	case "resets":
		q.say(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`)
		q.ended <- 0
		return
	case "full":
		q.say(`{"event":"BLOCK_IO_ERROR","data":{"device":"","node-name":"disk1","operation":"write","reason":"No space left on device"}}`)
		q.say(`{"event":"BLOCK_IO_ERROR","data":{"node-name":"disk0","operation":"read","reason":"another"}}`)
		q.ended <- 0
		return
	}
	if !restored {
		if protocol.ReceiveHello(q.port) != nil || protocol.SendHello(q.port) != nil {
			return
		}
	}
	_ = guest.NewServer(vmtest.Init{Off: q.powerOff}, guest.NewOwnReaper()).Serve(mux.Server(q.port))
}

// monitor serves QMP.
func (q *fake) monitor() {
	q.say(`{"QMP":{}}`)
	line, rights := make([]byte, maxMessage), make([]byte, 64)
	for {
		n, r, _, _, err := q.qmp.ReadMsgUnix(line, rights)
		if err != nil || n == 0 {
			return
		}
		if messages, err := syscall.ParseSocketControlMessage(rights[:r]); err == nil && len(messages) > 0 {
			if fds, err := syscall.ParseUnixRights(&messages[0]); err == nil && len(fds) > 0 {
				q.state = os.NewFile(uintptr(fds[0]), "state")
			}
		}
		for d := json.NewDecoder(bufio.NewReader(bytes.NewReader(line[:n]))); ; {
			var call struct {
				Execute string
				ID      int
			}
			if d.Decode(&call) != nil {
				break
			}
			q.do(call.Execute, call.ID)
		}
	}
}

func (q *fake) do(command string, id int) {
	switch {
	case command == "getfd" && q.behaviour == "refuses-getfd":
		q.say(`{"error":{"class":"GenericError","desc":"no such descriptor"},"id":%d}`, id)
		return
	case command == "migrate" && q.behaviour == "dies-saving":
		q.say(`{"return":{},"id":%d}`, id)
		q.ended <- 3
		return
	}
	q.say(`{"return":{},"id":%d}`, id)
	switch command {
	case "qmp_capabilities":
		close(q.talks)
	case "migrate":
		q.say(`{"event":"STOP"}`)
		if q.behaviour == "fails-to-save" {
			q.say(`{"event":"MIGRATION","data":{"status":"failed"}}`)
			return
		}
		_, _ = q.state.WriteString("a state")
		for _, status := range []string{"setup", "active", "completed"} {
			q.say(`{"event":"MIGRATION","data":{"status":%q}}`, status)
		}
	case "migrate-incoming":
		state, err := io.ReadAll(q.state)
		if err != nil || string(state) != "a state" {
			fmt.Fprintln(os.Stderr, "qemu: not a state")
			q.ended <- 1
			return
		}
		go q.boot(true)
	}
}

// powerOff ends it as its guest would.
func (q *fake) powerOff() {
	q.say(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}`)
	q.ended <- 0
}
