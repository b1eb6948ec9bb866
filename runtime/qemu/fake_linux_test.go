package qemu

import (
	"bufio"
	"bytes"
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
		if behaviour != "resets" {
			fmt.Println("hello from the console")
		}
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
	case "stops", "panics", "full":
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
	case "resets-loudly":
		fmt.Println("lumina-init: there is no root")
		q.end("guest-reset")
		return
	case "resets":
		q.end("guest-reset")
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
	cause := "guest-shutdown"
	if q.behaviour == "resets-later" {
		cause = "guest-reset"
	}
	_ = guest.NewServer(vmtest.Init{Off: func() { q.end(cause) }}, guest.NewOwnReaper()).Serve(mux.Server(q.port))
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

// end ends it as its guest would.
func (q *fake) end(cause string) {
	<-q.talks
	q.say(`{"event":"SHUTDOWN","data":{"guest":true,"reason":%q}}`, cause)
	q.ended <- 0
}
