package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// toolPackages are what people run in sessions.
var toolPackages = []string{
	"git", "gcc", "libc6-dev", "make", "htop", "vim", "procps", "python3", "python3-pip", "python3-setuptools", "python3-wheel", "openssh-server",
}

// tools makes the image of that name: a Debian with toolPackages.
var tools = sync.OnceValue(func() error {
	layout, err := buildertest.Debian("amd64", toolPackages...)
	if err != nil {
		return err
	}
	out, err := command("images", "create", "tools", "--from", "oci:"+layout+":latest", "--no-verify").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

func startToolsSession(t testing.TB, args ...string) string {
	t.Helper()
	if err := tools(); err != nil {
		t.Fatal(err)
	}
	return startTestSession(t, append([]string{"--image", "tools"}, args...)...)
}

// What people do in a session, with the programs that they do it with.
func TestTools(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs root or a VM")
	}
	share := t.TempDir()
	port, sshPort := freePort(t), freePort(t)
	sid := startToolsSession(t, "--forward", fmt.Sprintf("%d:8000", port), "--forward", fmt.Sprintf("%d:22", sshPort), "--volume", share+":/share")
	do := func(args ...string) result {
		t.Helper()
		return lumina(t, append([]string{"exec", sid}, args...)...)
	}

	t.Run("programs with a screen", func(t *testing.T) {
		term := newTerminal(t, fmt.Sprintf("LUMINA_HOME=%s TERM=screen %s exec --pty %s bash; echo ended $?; exec cat", home, program, sid))
		term.shows("/#")
		term.keys("vim /tmp/poem", "Enter")
		term.shows("[New]")
		// A program that ends forgets what was typed ahead: its end is waited for.
		term.keys("i", "roses are red")
		term.shows("roses are red")
		term.keys("Escape")
		term.keys(":w", "Enter")
		term.shows("written")
		term.keys(":q", "Enter")
		term.shows("/#")
		term.keys("clear; cat /tmp/poem", "Enter")
		term.shows("roses are red")
		term.keys("htop", "Enter")
		term.shows("Load average")
		term.keys("q")
		term.shows("/#")
		term.keys("python3", "Enter")
		term.shows(">>>")
		term.keys("6*7", "Enter")
		term.shows("42")
		term.keys("print('by' + 'e'); exit(5)", "Enter")
		term.shows("bye")
		term.shows("/# ")
		term.keys("exit 4", "Enter")
		term.shows("ended 4")
	})
	t.Run("pip installs from a directory copied in", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "greeter")
		write(t, filepath.Join(dir, "setup.py"), "from setuptools import setup\nsetup(name='greeter', version='1.0', py_modules=['greeter'])\n")
		write(t, filepath.Join(dir, "greeter.py"), "def greet(): return 'hello from a wheel'\n")
		lumina(t, "cp", dir, sid+":/tmp/greeter").succeeded(t)
		do("--timeout", "120s", "pip install --break-system-packages --no-index --no-build-isolation /tmp/greeter").succeeded(t)
		if r := do("cd / && python3 -c 'import greeter; print(greeter.greet())'").succeeded(t); r.Stdout != "hello from a wheel\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("a web server, reached by curl and wrk", func(t *testing.T) {
		do("mkdir -p /srv/www && echo served > /srv/www/index.html").succeeded(t)
		id := do("--detach", "--workdir", "/srv/www", "--", "python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "8000").succeeded(t).ID
		logs := command("logs", "-f", sid, id)
		logs.Env = append(logs.Env, "LUMINA_FORMAT=text")
		started(t, "Serving", logs)
		url := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) + "/"
		if out := buildertest.Run(t, "curl", "-sS", url); out != "served\n" {
			t.Errorf("curl: %q", out)
		}
		out := buildertest.Run(t, "wrk", "-t1", "-c8", "-d2s", "--timeout", "10s", url)
		if !regexp.MustCompile(`[1-9][0-9]* requests in`).MatchString(out) || strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") {
			t.Errorf("wrk: %s", out)
		}
		t.Log(out)
		lumina(t, "kill", sid, id).succeeded(t)
	})
	t.Run("git clone and a build on a shared directory", func(t *testing.T) {
		do("--timeout", "180s", `set -e
			git init -q /tmp/origin && cd /tmp/origin && git config user.email a@b && git config user.name a
			for i in $(seq 80); do head -c $((i * 997)) /dev/urandom > file$i; done
			printf 'int main(void) { return 42; }\n' > main.c; printf 'all: main\n' > Makefile
			git add . && git commit -qm first
			git clone -q /tmp/origin /share/clone && cd /share/clone && make -s && git fsck && git status --porcelain
			(cd /tmp/origin && sha256sum file*) > /share/sums`).succeeded(t)
		if r := do("/share/clone/main"); r.code != 42 {
			t.Errorf("the program that was built exits with %d", r.code)
		}
		// Byte for byte, seen from the host.
		check := exec.Command("sha256sum", "--quiet", "-c", "../sums")
		check.Dir = filepath.Join(share, "clone")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("ssh over a forward", func(t *testing.T) {
		key := filepath.Join(t.TempDir(), "key")
		buildertest.Run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
		lumina(t, "cp", key+".pub", sid+":/root/.ssh/authorized_keys").succeeded(t)
		do("mkdir -p /run/sshd && chmod 700 /root/.ssh && chmod 600 /root/.ssh/authorized_keys && /usr/sbin/sshd && until bash -c ': </dev/tcp/127.0.0.1/22' 2>/dev/null; do sleep 0.05; done").succeeded(t)
		out := buildertest.Run(t, "ssh", "-i", key, "-p", strconv.Itoa(sshPort), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@127.0.0.1", "echo over ssh")
		if out != "over ssh\n" {
			t.Errorf("ssh: %q", out)
		}
	})
}

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// terminal is a terminal with a command in it; tmux owns it.
type terminal struct {
	t      testing.TB
	socket string
}

func newTerminal(t testing.TB, shell string) *terminal {
	t.Helper()
	term := &terminal{t, filepath.Join(t.TempDir(), "tmux")}
	term.tmux("new-session", "-d", "-x", "100", "-y", "30", shell)
	t.Cleanup(func() { term.tmux("kill-server") })
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	return buildertest.Run(term.t, "tmux", append([]string{"-S", term.socket, "-f", "/dev/null"}, args...)...)
}

func (term *terminal) keys(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until the screen shows want.
func (term *terminal) shows(want string) {
	term.t.Helper()
	polltest.Until(term.t, func() error {
		if screen := term.tmux("capture-pane", "-p"); !strings.Contains(screen, want) {
			return fmt.Errorf("the screen does not show %q:\n%s", want, screen)
		}
		return nil
	})
}

// Programs that want a terminal, in one.
func TestTerminal(t *testing.T) {
	sid := startTestSession(t)
	term := newTerminal(t, fmt.Sprintf("LUMINA_HOME=%s %s exec --pty %s bash; echo ended $?; stty -a | grep -o ' echo '; exec cat", home, program, sid))
	other := newTerminal(t, fmt.Sprintf("LUMINA_HOME=%s %s exec --pty %s bash; echo ended $?; stty -a | grep -o ' echo '; exec cat", home, program, sid))
	term.shows("/#")
	other.shows("/#")
	term.keys("tty | grep -c /dev/pts/; stty size; echo $((6*7))", "Enter")
	term.shows("1\n30 100\n42")
	term.tmux("resize-window", "-x", "80", "-y", "20")
	// The new size reaches the guest beside what is typed, and may be later.
	term.keys("until stty size | grep '20 80'; do sleep 0.1; done", "Enter")
	term.shows("20 80\nroot@")
	term.keys("echo go; sleep 100", "Enter")
	term.shows("\ngo\n")
	term.keys("C-c", "echo interrupted $?", "Enter")
	term.shows("interrupted 130")
	term.keys("exit 3", "Enter")
	term.shows("ended 3\n echo") // and the terminal is itself again
	// The session ends under the other: so is that one.
	kill(t, childOf(t, sessionPID(t, sid)))
	other.shows("ended 125\n echo")
}

func entries(t testing.TB, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A thousand connections at once through a forward.
func TestForwardManyAtOnce(t *testing.T) {
	port := freePort(t)
	sid := startTestSession(t, "--forward", fmt.Sprintf("%d:8080", port))
	perl := `use IO::Socket::INET; use IO::Select; my $l = IO::Socket::INET->new(Listen=>4096, LocalAddr=>"127.0.0.1", LocalPort=>8080) or die;
		$| = 1; print "up\n"; my $s = IO::Select->new($l); while (1) { for my $c ($s->can_read) { if ($c == $l) { $s->add($l->accept) } else { my $b; if (sysread $c, $b, 100) { syswrite $c, $b } else { $s->remove($c); close $c } } } }`
	id := lumina(t, "exec", sid, "--detach", "--", "perl", "-e", perl).succeeded(t).ID
	cmd := command("logs", "-f", sid, id)
	cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
	started(t, "up", cmd)
	var wg sync.WaitGroup
	open := make(chan struct{})
	for n := range 1000 {
		wg.Go(func() {
			c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			<-open // until all are connected
			want := fmt.Sprintf("connection %d\n", n)
			_, _ = io.WriteString(c, want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	close(open)
	wg.Wait()
}
