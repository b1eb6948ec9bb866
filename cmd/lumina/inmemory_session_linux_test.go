package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// A session from its start to its end.
func TestInMemorySession(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	sid := m.started("--name", "web", "--label", "team=a")
	if r := m.lumina("session", "start", "--image", "img", "--name", "web"); r.code != exitFailure || !strings.Contains(r.Message, "there is a session of that name") {
		t.Errorf("a second one of the name: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, id := range []string{sid, sid[:8], "web", `{"sid":"` + sid + `"}`} {
		if r := m.lumina("exec", id, "echo $FROM").succeeded(t); r.Stdout != "image\n" {
			t.Errorf("exec %s: %s", id, r.stdout)
		}
	}
	if r := m.pipe("in\n", "exec", "web", "cat; exit 5"); r.code != 5 || r.Stdout != "in\n" {
		t.Errorf("exec: %d, %s", r.code, r.stdout)
	}
	if r := m.lumina("exec", "--timeout", "300ms", "web", "echo begun; exec sleep 60"); r.code != exitTimeout || r.Error != "timeout" || r.PartialStdout == nil || *r.PartialStdout != "begun\n" {
		t.Errorf("exec with a timeout: %d, %s", r.code, r.stdout)
	}
	// Copies, both ways.
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in", "file"), "content")
	m.lumina("cp", filepath.Join(dir, "in"), "web:"+filepath.Join(dir, "guest")).succeeded(t)
	if r := m.lumina("cp", "web:"+filepath.Join(dir, "guest", "file"), filepath.Join(dir, "out")).succeeded(t); r.stdout != `{"files":1,"bytes":7}`+"\n" {
		t.Errorf("cp prints %q", r.stdout)
	}
	if got := string(readFile(t, filepath.Join(dir, "out"))); got != "content" {
		t.Errorf("copied in and out: %q", got)
	}
	// What fails on this host is in the JSON, too.
	if r := m.lumina("cp", "web:"+filepath.Join(dir, "guest", "file"), "/dev/full"); r.code != exitFailure || r.Error != "connection_failed" || !strings.Contains(r.Message, "no space left") {
		t.Errorf("cp to a full disk: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := m.lumina("cp", "web:"+filepath.Join(dir, "none"), dir); r.code != exitFailure || !strings.Contains(r.stderr+r.Message, "none") {
		t.Errorf("cp of a file that is not there: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// A detached command, its logs and its end.
	id := m.lumina("exec", "-d", "web", "echo log; exec sleep 600").succeeded(t).ID
	polltest.True(t, "it has printed", func() bool { return m.lumina("logs", "web", id).succeeded(t).Stdout == "log\n" })
	follow := m.begin(t.Context(), "", "logs", "-f", "web", id)
	if r := m.lumina("ps", "web").succeeded(t); !strings.Contains(r.stdout, `"id":"`+id+`"`) || !strings.Contains(r.stdout, `"state":"running"`) {
		t.Errorf("ps web: %s", r.stdout)
	}
	if r := m.lumina("kill", "-s", "KILL", "web", id).succeeded(t); !strings.Contains(r.stdout, `"signal":9`) {
		t.Errorf("kill: %s", r.stdout)
	}
	if r := follow.wait(); r.code != 0 || !strings.Contains(r.stdout, `log\n`) {
		t.Errorf("logs -f: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	polltest.True(t, "it has ended", func() bool { return strings.Contains(m.lumina("ps", "web").stdout, `"exit_code":137`) })
	if r := m.lumina("logs", "web", "99999"); r.code != exitFailure || r.Error != "connection_failed" {
		t.Errorf("logs of nothing: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// Who is there.
	for _, args := range [][]string{{"ps"}, {"session", "list"}, {"ps", "--filter", "label=team=a"}, {"ps", "--filter", "status=running"}} {
		if r := m.lumina(args...).succeeded(t); !strings.Contains(r.stdout, `"name":"web"`) || !strings.Contains(r.stdout, `"status":"running"`) {
			t.Errorf("%v: %s", args, r.stdout)
		}
	}
	if r := m.lumina("ps", "-q", "--filter", "name=db").succeeded(t); r.stdout != "" {
		t.Errorf("ps of another: %s", r.stdout)
	}
	m.env["LUMINA_FORMAT"] = "text"
	if r := m.lumina("ps").succeeded(t); !strings.Contains(r.stdout, "web") || !strings.Contains(r.stdout, "running") {
		t.Errorf("ps as text: %s", r.stdout)
	}
	if r := m.lumina("ps", "web").succeeded(t); !strings.Contains(r.stdout, "exited 137") {
		t.Errorf("ps web as text: %s", r.stdout)
	}
	if r := m.lumina("session", "stop", "web"); r.code != 0 || r.stdout != "stopped\n" {
		t.Errorf("stop: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := m.lumina("session", "stop", sid); r.code != 0 || r.stdout != "not running\n" {
		t.Errorf("a second stop: %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

// A session with its image's command, and with ports.
func TestInMemorySessionRunsAndForwards(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	r := m.lumina("session", "start", "--image", "img", "--run", "-e", "A=1").succeeded(t)
	polltest.True(t, "the image's command has run", func() bool { return m.lumina("logs", r.SID, r.ID).Stdout == "of the image\n" })
	m.lumina("session", "stop", r.SID).succeeded(t)

	service, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go serveOnce(service, "served\n")
	_, port, _ := net.SplitHostPort(service.Addr().String())
	sid := m.started("-p", port)
	forwards := func(args ...string) (list []struct{ Host, Guest int }) {
		t.Helper()
		var reply struct{ Forwards []struct{ Host, Guest int } }
		if err := json.Unmarshal([]byte(m.lumina(append([]string{"session", "forward", sid}, args...)...).succeeded(t).stdout), &reply); err != nil {
			t.Fatal(err)
		}
		return reply.Forwards
	}
	first := forwards()
	if len(first) != 1 || ask(t, first[0].Host) != "served\n" {
		t.Fatalf("forwards: %+v", first)
	}
	two := forwards(port)
	i := slices.IndexFunc(two, func(f struct{ Host, Guest int }) bool { return f.Host != first[0].Host })
	if len(two) != 2 || ask(t, two[i].Host) != "served\n" {
		t.Fatalf("forwards: %+v", two)
	}
	// Another's port: nothing changes.
	if r := m.lumina("session", "forward", sid, fmt.Sprintf("%s:80", port)); r.code != exitFailure || r.Error != "connection_failed" {
		t.Errorf("a port that is taken: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if left := forwards("--remove", fmt.Sprint(first[0].Host)); len(left) != 1 || left[0].Host != two[i].Host {
		t.Errorf("after a removal: %+v", left)
	}
	if r := m.lumina("session", "start", "--image", "img", "-p", port+":80"); r.code != exitFailure || !strings.Contains(r.Message, port) {
		t.Errorf("a session on a port that is taken: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	m.lumina("session", "stop", sid).succeeded(t)
}

// A session that does not start says why, and leaves nothing.
func TestInMemorySessionFails(t *testing.T) {
	for name, tt := range map[string]struct {
		fake *vmtest.Fake
		says string
	}{
		"the driver refuses":         {&vmtest.Fake{StartError: errors.New("no hypervisor")}, "no hypervisor"},
		"no init":                    {&vmtest.Fake{EndBeforeAgent: true}, "no init found"},
		"its init refuses":           {&vmtest.Fake{ConfigureError: errors.New("no eth0")}, "no eth0"},
		"lost as it is configured":   {&vmtest.Fake{Dialing: crashing(1)}, "a last word"},
		"lost as its command starts": {&vmtest.Fake{Dialing: crashing(2)}, "the test says so"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newInMemory(t, tt.fake)
			r := m.lumina("session", "start", "--image", "img", "--run")
			if r.code != exitFailure || r.Error == "" || !strings.Contains(r.Message, tt.says) {
				t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
}

// A session that loses its VM under any command says so, to that command, to those
// that come later, and in the list, until it is stopped.
func TestInMemorySessionLosesItsVM(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in"), "x")
	for _, tt := range []struct {
		name  string
		args  []string // of a command on session web
		error string
	}{
		{"as a command starts", []string{"exec", "web", "true"}, "vm_crashed"},
		{"as a command is detached", []string{"exec", "-d", "web", "true"}, "vm_crashed"},
		{"as a file is copied in", []string{"cp", filepath.Join(dir, "in"), "web:/tmp/never"}, ""},
		{"as a file is copied out", []string{"cp", "web:/etc/hostname", dir}, ""},
		{"as logs are read", []string{"logs", "web", "1"}, "vm_crashed"},
		{"as processes are listed", []string{"ps", "web"}, "vm_crashed"},
		{"as a signal is sent", []string{"kill", "web", "1"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newInMemory(t, &vmtest.Fake{Dialing: crashing(2)}) // the first stream is the configuration's
			m.started("--name", "web")
			r := m.lumina(tt.args...)
			if r.code != exitFailure || tt.error != "" && r.Error != tt.error || !strings.Contains(r.stderr+r.Message, "the test says so") {
				t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
			for _, later := range [][]string{{"exec", "web", "true"}, tt.args, {"session", "forward", "web", "1"}} {
				if r := m.lumina(later...); r.code != exitFailure || !strings.Contains(r.stderr+r.Message, "the test says so") {
					t.Errorf("%v afterwards: %d, %s%s", later, r.code, r.stdout, r.stderr)
				}
			}
			if r := m.lumina("ps").succeeded(t); !strings.Contains(r.stdout, `"status":"crashed"`) || !strings.Contains(r.stdout, `"console":"a last word"`) {
				t.Errorf("ps: %s", r.stdout)
			}
			m.lumina("session", "stop", "web").succeeded(t)
			if r := m.lumina("ps").succeeded(t); r.stdout != "[]\n" {
				t.Errorf("after the stop: %s", r.stdout)
			}
		})
	}
	t.Run("under its commands", func(t *testing.T) {
		fake := &vmtest.Fake{}
		m := newInMemory(t, fake)
		m.started("--name", "web")
		m.env["LUMINA_OUTPUT"] = "ndjson"
		id := m.lumina("exec", "-d", "web", "echo log; exec sleep 60").succeeded(t).ID
		running := m.begin(t.Context(), "", "exec", "web", "echo partial; exec sleep 60")
		following := m.begin(t.Context(), "", "logs", "-f", "web", id)
		running.printed("partial")
		following.printed("log")
		fake.Machines()[0].Crash("the test says so")
		if r := running.wait(); r.code != exitFailure || !strings.Contains(r.stdout, `"error":"vm_crashed"`) {
			t.Errorf("exec: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		if r := following.wait(); r.code != exitFailure || !strings.Contains(r.stdout, "vm_crashed") {
			t.Errorf("logs -f: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		m.lumina("session", "stop", "web").succeeded(t)
	})
	t.Run("and its supervisor", func(t *testing.T) {
		m := newInMemory(t, &vmtest.Fake{})
		ctx, cancel := context.WithCancel(context.Background())
		m.ctx = ctx
		sid := m.started()
		m.env["LUMINA_OUTPUT"] = "ndjson"
		running := m.begin(t.Context(), "", "exec", sid, "echo begun; exec sleep 60")
		running.printed("begun")
		delete(m.env, "LUMINA_OUTPUT")
		cancel()
		if r := running.wait(); r.code != exitFailure || !strings.Contains(r.stdout, `"error":"session_disconnected"`) {
			t.Errorf("exec: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		if r := m.lumina("exec", sid, "true"); r.code != exitFailure || r.Error != "connection_failed" {
			t.Errorf("exec afterwards: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		m.supervisors.Wait()
	})
}

// The members of a network are sessions that end together.
func TestInMemoryNetwork(t *testing.T) {
	fake := &vmtest.Fake{}
	m := newInMemory(t, fake)
	file := filepath.Join(t.TempDir(), "network.yml")
	write(t, file, "sessions:\n  - {name: db, image: img}\n  - {name: web, image: img}\n")
	run := m.begin(t.Context(), "", "network", "run", file)
	var up struct {
		Sessions []struct{ Name, SID, Address string }
	}
	if err := json.Unmarshal([]byte(run.printed("\n")), &up); err != nil || len(up.Sessions) != 2 || up.Sessions[0].Name != "db" || up.Sessions[1].Address != "10.0.3.2/24" {
		t.Fatalf("sessions: %+v", up)
	}
	for _, s := range up.Sessions {
		if r := m.lumina("exec", s.SID, "echo in").succeeded(t); r.Stdout != "in\n" {
			t.Errorf("exec in %s: %s", s.Name, r.stdout)
		}
	}
	for _, machine := range fake.Machines() {
		c := machine.Configured()[0]
		other := map[string]string{"db": "web", "web": "db"}[c.Hostname]
		if machine.Spec().Network == nil || !slices.ContainsFunc(c.Hosts, func(h protocol.Host) bool { return h.Name == other }) {
			t.Errorf("member %q: NIC %v, hosts %v", c.Hostname, machine.Spec().Network, c.Hosts)
		}
	}
	fake.Machines()[0].Crash("the test says so")
	if r := run.wait(); r.code != exitFailure || !strings.Contains(r.stdout, "the test says so") {
		t.Errorf("a network whose member has crashed: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, s := range up.Sessions { // what the crash has left to be told
		_ = m.lumina("session", "stop", s.SID)
	}
	// One that does not start takes the others with it.
	broken := &vmtest.Fake{Dialing: func(m *vmtest.Machine, _ int) {
		if m.Spec().Memory == 128<<20 {
			m.Crash("the test says so")
		}
	}}
	m = newInMemory(t, broken)
	write(t, file, "sessions:\n  - {name: db, image: img}\n  - {name: web, image: img, memory: 128MB}\n")
	if r := m.lumina("network", "run", file); r.code != exitFailure || !strings.Contains(r.Message, "the test says so") {
		t.Errorf("a member that does not start: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for text, says := range map[string]string{
		"":                                  "it is empty",
		"sessions: []":                      "0 sessions",
		"sessions: [{name: A, image: img}]": "host name",
		"sessions: [{name: a, image: img}, {name: a, image: img}]": "two of the name",
		"sessions: [{name: a, image: img, memory: much}]":          "much",
		"sessions: [{name: a, image: img, colour: red}]":           "sessions[0].colour: there is no such field",
		"sessions: [{name: a, image: img, cpus: many, hue: red}]":  "sessions[0].cpus: want a whole number",
		"sessions: [": "did not find",
		"sessions: [{name: a, image: img, forwards: [x]}]": "x",
	} {
		write(t, file, text)
		if r := m.lumina("network", "run", file); r.code != exitUsage || !strings.Contains(r.stderr, says) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%q: %d, %s%s", text, r.code, r.stdout, r.stderr)
		}
	}
}
