package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// startSession starts a session that the test ends with.
func startTestSession(t testing.TB, args ...string) string {
	t.Helper()
	// The last flag of a name wins.
	r := lumina(t, append([]string{"session", "start", "--image", "debian"}, args...)...).succeeded(t)
	if r.SID == "" {
		t.Fatalf("no sid in %q", r.stdout)
	}
	t.Cleanup(func() {
		lumina(t, "session", "stop", r.SID).succeeded(t)
		nothingLeft(t)
	})
	return r.SID
}

// What one session does is tested on one VM: all of it must leave the session
// working for the next.
func TestSession(t *testing.T) {
	sid := startTestSession(t)
	do := func(args ...string) result {
		t.Helper()
		return lumina(t, append([]string{"exec", sid}, args...)...)
	}
	t.Cleanup(func() { do("true").succeeded(t) })

	t.Run("files stay between execs, nothing else does", func(t *testing.T) {
		do("cd /tmp && export A=1 && echo kept > file").succeeded(t)
		if r := do("cat /tmp/file; echo $PWD $A").succeeded(t); r.Stdout != "kept\n/\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("a SID that is gone, and what is none", func(t *testing.T) {
		if r := lumina(t, "session", "stop", "00000000-0000-4000-8000-000000000000").succeeded(t); !strings.Contains(r.stdout, `"confirmed":false`) {
			t.Errorf("stop of a SID that is gone: %s", r.stdout)
		}
		for _, id := range []string{"no-session", "{}", "../x"} {
			if r := lumina(t, "session", "stop", id); r.code != 125 || r.Error != "connection_failed" || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("stop %q: exit code %d, %s %s", id, r.code, r.stdout, r.stderr)
			}
		}
	})
	t.Run("a unique beginning of the SID is enough", func(t *testing.T) {
		if r := lumina(t, "exec", sid[:8], "exit 9"); r.code != 9 {
			t.Errorf("exit code %d: %s", r.code, r.stdout)
		}
	})
	t.Run("100 MiB of standard input", func(t *testing.T) {
		cmd := command("exec", sid, "sha256sum")
		cmd.Stdin = io.LimitReader(zeros{}, 100<<20)
		if r := finish(t, cmd).succeeded(t); !strings.HasPrefix(r.Stdout, fmt.Sprintf("%x", sumOf(0, 100<<20))) {
			t.Errorf("sum of the input = %q", r.Stdout)
		}
	})
	t.Run("input that never ends does not hold up the exit", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		cmd := command("exec", sid, "exit 4")
		cmd.Stdin = r
		if got := finish(t, cmd); got.code != 4 {
			t.Errorf("exit code %d", got.code)
		}
	})
	t.Run("a program that does not read its input", func(t *testing.T) {
		cmd := command("exec", sid, "exec <&-; sleep 0.2; echo done")
		cmd.Stdin = io.LimitReader(zeros{}, 50<<20)
		if r := finish(t, cmd).succeeded(t); r.Stdout != "done\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("a background child does not hold up the exit", func(t *testing.T) {
		if r := do("sleep 300 & echo started").succeeded(t); r.Stdout != "started\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		do("pkill sleep || kill $(grep -l ^Name:.sleep /proc/[0-9]*/status | cut -d/ -f3)").succeeded(t)
	})
	t.Run("a timeout kills the process group", func(t *testing.T) {
		r := do("--timeout", "500ms", "echo part; sleep 301 & sleep 301")
		if r.code != 124 || r.Error != "timeout" || *r.PartialStdout != "part\n" {
			t.Errorf("exit code %d, %s", r.code, r.stdout)
		}
		noProcess(t, sid, "sleep")
	})
	t.Run("a client that goes takes its command along", func(t *testing.T) {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			cmd := command("exec", sid, "echo running; sleep 302")
			cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
			started(t, "running", cmd)
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if code := waitCode(t, cmd); code != 130 && code != -9 {
				t.Errorf("after %v: exit code %d", signal, code)
			}
			noProcess(t, sid, "sleep")
		}
	})
	t.Run("detached commands, their logs, and signals to them", func(t *testing.T) {
		id := do("--detach", "echo out; echo err >&2; sleep 0.3; echo end").succeeded(t).ID
		cmd := command("logs", "--follow", sid, id)
		cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
		if r := finish(t, cmd); r.stdout != "out\nend\n" || r.stderr != "err\n" {
			t.Errorf("logs = %q, %q", r.stdout, r.stderr)
		}
		if r := lumina(t, "logs", sid, id).succeeded(t); r.Stdout != "out\nend\n" || r.Stderr != "err\n" {
			t.Errorf("logs = %s", r.stdout)
		}
		server := do("--detach", "trap 'echo got it; exit 5' TERM; while :; do sleep 0.05; done").succeeded(t).ID
		if p := processByID(t, sid, server); p["state"] != "running" || p["detached"] != true {
			t.Errorf("ps = %v", p)
		}
		lumina(t, "kill", sid, server).succeeded(t)
		finish(t, command("logs", "-f", sid, server)).succeeded(t)
		if p := processByID(t, sid, server); p["state"] != "exited" || p["exit_code"] != 5.0 {
			t.Errorf("ps after kill = %v", p)
		}
		if r := lumina(t, "kill", sid, server); r.code != 125 || !strings.Contains(r.Message, "has ended") {
			t.Errorf("kill of what has ended: exit code %d, %s, %q", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for n := range 50 {
			wg.Go(func() {
				if r := lumina(t, "exec", sid, fmt.Sprintf("echo %d; exit %d", n, n%7)); r.Stdout != fmt.Sprintf("%d\n", n) || r.code != n%7 {
					t.Errorf("exec %d = %d, %s %s", n, r.code, r.stdout, r.stderr)
				}
			})
		}
		wg.Wait()
	})
	t.Run("ps of what a guest has named", func(t *testing.T) {
		id := do("--detach", "exec sleep 60 # \x1b[2J").succeeded(t).ID
		cmd := command("ps", sid)
		cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
		if r := finish(t, cmd).succeeded(t); !strings.Contains(r.stdout, `# \x1b[2J`) || strings.Contains(r.stdout, "\x1b") {
			t.Errorf("ps prints %q", r.stdout)
		}
		lumina(t, "kill", sid, id, "--signal", "KILL").succeeded(t)
	})
	t.Run("forwards", func(t *testing.T) {
		testForwards(t, sid)
	})
	t.Run("ps", func(t *testing.T) {
		if r := lumina(t, "ps", "-aq").succeeded(t); r.stdout != sid+"\n" {
			t.Errorf("ps -aq prints %q, want %s and nothing else", r.stdout, sid)
		}
		var rows []map[string]any
		if err := json.Unmarshal([]byte(lumina(t, "ps").succeeded(t).stdout), &rows); err != nil {
			t.Fatal(err)
		}
		if len(rows) != 1 || rows[0]["sid"] != sid || rows[0]["image"] != "debian" || rows[0]["active_execs"] != 0.0 {
			t.Errorf("ps = %v", rows)
		}
	})
	t.Run("cp of a tree and back", func(t *testing.T) { copyTree(t, sid) })
	t.Run("cp errors leave nothing", func(t *testing.T) {
		dir := t.TempDir()
		if r := lumina(t, "cp", dir+"/none", sid+":/x"); r.code != 2 {
			t.Errorf("cp of what is not there: exit code %d, %s", r.code, r.stdout)
		}
		for _, args := range [][]string{{sid + ":/none", dir}, {sid + ":/none", dir + "/no/such/dir"}, {sid + ":/dev/null", dir}, {"--max-size", "1MB", sid + ":/bin/bash", dir + "/no/such/"}} {
			if r := lumina(t, append([]string{"cp"}, args...)...); r.code != 125 {
				t.Errorf("cp %q: exit code %d, %s", args, r.code, r.stdout)
			}
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// noProcess waits until no process of a name runs in the VM.
func noProcess(t *testing.T, sid, name string) {
	t.Helper()
	r := lumina(t, "exec", sid, "--timeout", "5s", "while grep -q ^Name:.'"+name+"'$ /proc/[0-9]*/status 2>/dev/null; do :; done")
	if r.code != 0 {
		t.Errorf("%s still runs: %s", name, r.stdout)
	}
}

func processByID(t *testing.T, sid, id string) map[string]any {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal([]byte(lumina(t, "ps", sid).succeeded(t).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r["id"] == id {
			return r
		}
	}
	t.Fatalf("ps has no %s: %v", id, rows)
	return nil
}

func copyTree(t *testing.T, sid string) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	write := func(name string, content []byte, mode os.FileMode) {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1500000000, 123000000)
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	random := make([]byte, 3<<20+17)
	_, _ = rand.Read(random)
	write("random", random, 0o640)
	write("a name\nwith a line break", nil, 0o444)
	write("deep/er/setuid", []byte("x"), 0o755|os.ModeSetuid)
	for n := range 300 {
		write("many/"+strconv.Itoa(n), bytes.Repeat([]byte{byte(n)}, n*10), 0o644)
	}
	if err := os.Symlink("../outside", filepath.Join(source, "link")); err != nil {
		t.Fatal(err)
	}
	sparse, err := os.Create(filepath.Join(source, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_ = sparse.Truncate(2 << 30)
	_, _ = sparse.WriteAt([]byte("end"), 1<<30)
	sparse.Close()
	if err := os.Chmod(filepath.Join(source, "deep"), 0o555); err != nil {
		t.Fatal(err)
	}
	lumina(t, "cp", source, sid+":/copied").succeeded(t)
	if r := lumina(t, "exec", sid, "du -k /copied/sparse | cut -f1; stat -c '%U %a' /copied/random /copied/deep/er/setuid").succeeded(t); r.Stdout != "64\nroot 640\nroot 4755\n" && r.Stdout != "4\nroot 640\nroot 4755\n" {
		t.Errorf("in the guest: %q", r.Stdout)
	}
	back := filepath.Join(dir, "back")
	lumina(t, "cp", sid+":/copied", back).succeeded(t)
	buildertest.Run(t, "diff", "--recursive", "--no-dereference", source, back)
	for _, name := range []string{"random", "many/7", "deep"} {
		want, _ := os.Stat(filepath.Join(source, name))
		got, err := os.Stat(filepath.Join(back, name))
		if err != nil || got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()) {
			t.Errorf("%s = %v, %v, want %v, %v", name, got.Mode(), got.ModTime(), want.Mode(), want.ModTime())
		}
	}
	if got, _ := os.Stat(filepath.Join(back, "deep/er/setuid")); got.Mode()&os.ModeSetuid != 0 {
		t.Error("a file of the guest is setuid on the host")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(back, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the sparse file takes %d bytes, %v", st.Blocks*512, err)
	}
}

func TestForward(t *testing.T) {
	port := freePort(t)
	sid := startTestSession(t, "--network", "none", "--forward", fmt.Sprintf("%d:8080", port))
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	// Nobody listens in the guest yet: refused, and the session lives on.
	if r, err := http.Get("http://" + address); err == nil {
		r.Body.Close()
		t.Error("a connection to nobody succeeded")
	}
	perl := `use IO::Socket::INET; my $s = IO::Socket::INET->new(Listen=>64, LocalAddr=>"127.0.0.1", LocalPort=>8080, ReuseAddr=>1) or die;
		$| = 1; print "up\n"; while (my $c = $s->accept) { my $n = 0; while (read($c, my $b, 65536)) { $n += length $b } print $c "got $n\n"; close $c }`
	id := lumina(t, "exec", sid, "--detach", "--", "perl", "-e", perl).succeeded(t).ID
	cmd := command("logs", "-f", sid, id)
	cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
	started(t, "up", cmd)
	for n := range 30 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		// The server answers when its client has sent all: half-close is kept.
		_, _ = c.Write(make([]byte, n*5000))
		_ = c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != fmt.Sprintf("got %d\n", n*5000) {
			t.Errorf("answer = %q, %v", b, err)
		}
		c.Close()
	}
	for _, other := range []string{"127.0.0.2", "127.255.255.254"} {
		l, err := net.Listen("tcp4", net.JoinHostPort(other, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the forward has taken more than 127.0.0.1: %v", err)
		}
		if err == nil { // a Mac does not have these
			l.Close()
		}
	}
	r := lumina(t, "session", "start", "--image", "debian", "--forward", fmt.Sprintf("%d:80", port))
	if r.code != 125 || !strings.Contains(r.Message, "another program listens") {
		t.Errorf("a second session on the port: exit code %d, %s", r.code, r.stdout)
	}
}

// testForwards adds forwards to a session, TCP and UDP, and removes them.
func testForwards(t *testing.T, sid string) {
	tcp, udp := freePort(t), freePort(t)
	r := lumina(t, "session", "forward", sid, fmt.Sprintf("%d:8081", tcp), fmt.Sprintf("%d:8081/udp", udp)).succeeded(t)
	if rules := fmt.Sprintf(`[{"protocol":"tcp","host":%d,"guest":8081},{"protocol":"udp","host":%d,"guest":8081}]`, tcp, udp); !strings.Contains(r.stdout, rules) ||
		!strings.Contains(lumina(t, "ps").stdout, rules) {
		t.Errorf("it forwards %s, want %s", r.stdout, rules)
	}
	echo := `use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto=>"udp", LocalAddr=>"127.0.0.1", LocalPort=>8081) or die;
		$| = 1; print "up\n"; while (defined $s->recv(my $b, 65536)) { $s->send(uc $b) }`
	id := lumina(t, "exec", sid, "--detach", "--", "perl", "-e", echo).succeeded(t).ID
	defer lumina(t, "kill", sid, id)
	logs := command("logs", "-f", sid, id)
	logs.Env = append(logs.Env, "LUMINA_FORMAT=text")
	started(t, "up", logs)
	c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", udp))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 100)
	_, _ = c.Write([]byte("hello"))
	if n, err := c.Read(b); err != nil || string(b[:n]) != "HELLO" {
		t.Errorf("by UDP comes %q, %v", b[:n], err)
	}
	lumina(t, "session", "forward", sid, "--remove", strconv.Itoa(tcp), "--remove", fmt.Sprintf("%d/udp", udp)).succeeded(t)
	if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", tcp)); err == nil {
		c.Close()
		t.Error("a forward that was removed is there")
	}
	for _, tt := range []struct {
		args []string
		code int
	}{{[]string{"0.0.0.0:80:80"}, 2}, {[]string{"x"}, 2}, {[]string{"--remove", "1"}, 125}, {[]string{"81:81", "81:82"}, 2}} {
		if r := lumina(t, append([]string{"session", "forward", sid}, tt.args...)...); r.code != tt.code {
			t.Errorf("forward %q: exit code %d, %s", tt.args, r.code, r.stderr)
		}
	}
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestSessionStartThatFails(t *testing.T) {
	r := lumina(t, "session", "start", "--image", "nope")
	if r.code != 125 || r.Error != "connection_failed" || !strings.Contains(r.Message, `image "nope": no such image`) {
		t.Errorf("exit code %d, %s", r.code, r.stdout)
	}
	// Interrupted while it starts.
	cmd := command("session", "start", "--image", "debian")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(strings.Join(processes(t), "\n"), "qemu-system-") {
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	if code := waitCode(t, cmd); code != 130 {
		t.Errorf("interrupted start: exit code %d", code)
	}
	nothingLeft(t)
}

// QEMU may be installed where the system has no programs: who is confined may run
// it all the same.
func TestQEMUElsewhere(t *testing.T) {
	bin := t.TempDir()
	if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil { // root's QEMU has a user of its own
		t.Fatal(err)
	}
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		program, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		write(t, filepath.Join(bin, name), "#!/bin/sh\nexec "+program+" \"$@\"\n")
		if err := os.Chmod(filepath.Join(bin, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := "PATH=" + bin + ":" + os.Getenv("PATH")
	s := finish(t, with(command("session", "start", "--image", "debian"), path)).succeeded(t)
	lumina(t, "exec", s.SID, "true").succeeded(t)
	lumina(t, "session", "stop", s.SID).succeeded(t)
	nothingLeft(t)
}

// What another version of the program has started can be stopped.
func TestSessionOfAnotherVersion(t *testing.T) {
	s := lumina(t, "session", "start", "--image", "debian").succeeded(t)
	file := filepath.Join(home, "sessions", s.SID, "session.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(b), `"protocol":2`, `"protocol":99`, 1))
	for _, args := range [][]string{{"exec", s.SID, "true"}, {"ps", s.SID}, {"cp", s.SID + ":/etc/passwd", t.TempDir()}} {
		r := lumina(t, args...)
		if r.code != 125 || !strings.Contains(r.stdout+r.stderr, "started by another version") {
			t.Errorf("lumina %q: exit code %d, %s %s", args, r.code, r.stdout, r.stderr)
		}
	}
	lumina(t, "session", "stop", s.SID).succeeded(t)
	nothingLeft(t)
}

func TestSessionEndsAfterItsTTL(t *testing.T) {
	lumina(t, "session", "start", "--image", "debian", "--name", "unused", "--ttl", "1s").succeeded(t)
	nothingLeft(t)
	if r := lumina(t, "exec", "unused", "true"); r.code != 125 || !strings.Contains(r.Message, `session "unused": no such session any more: its ttl of 1s ended it at `) {
		t.Errorf("after it: exit code %d, %s", r.code, r.stdout)
	}
	lumina(t, "clean").succeeded(t)
	if r := lumina(t, "exec", "unused", "true"); r.code != 125 || strings.Contains(r.Message, "ttl") {
		t.Errorf("after a clean: exit code %d, %s", r.code, r.stdout)
	}
}
