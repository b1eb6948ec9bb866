package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// trap tells of the signal that came, and ends in its own way.
const trap = `for s in HUP INT TERM; do trap "echo $s; exit 7" $s; done; echo up; while :; do sleep 0.1; done`

// deaf goes on whatever comes, until it is killed.
const deaf = `trap "" HUP INT TERM; echo up; while :; do sleep 0.1; done`

// TestTwins has timeout(1), which sends its signal twice, kill nothing that has a trap.
func TestTwins(t *testing.T) {
	var seen twins
	start := time.Now()
	for n, tt := range []struct {
		signal syscall.Signal
		after  time.Duration
		want   bool
	}{
		{syscall.SIGTERM, 0, false}, {syscall.SIGTERM, time.Millisecond, true}, {syscall.SIGTERM, 200 * time.Millisecond, false},
		{syscall.SIGINT, 201 * time.Millisecond, false}, {syscall.SIGTERM, 202 * time.Millisecond, false},
		{syscall.SIGUSR1, 300 * time.Millisecond, false}, {syscall.SIGUSR1, 300 * time.Millisecond, false},
	} {
		if got := seen.twin(tt.signal, start.Add(tt.after)); got != tt.want {
			t.Errorf("signal %d, %v: %v, want %v", n, tt.signal, got, tt.want)
		}
	}
}

// A signal of run and exec is the command's to answer; the second one kills.
func TestSignalsReachTheCommand(t *testing.T) {
	sid := lumina(t, "session", "start", "--image", "debian").succeeded(t).SID
	t.Cleanup(func() { lumina(t, "session", "stop", sid).succeeded(t) })
	start := map[string][]string{"run": {"run", "--image", "debian"}, "exec": {"exec", sid}}
	tests := []struct {
		name, verb, script string
		signals            []syscall.Signal
		code               int
		stdout             string
	}{
		{"a trap, run", "run", trap, []syscall.Signal{syscall.SIGTERM}, 7, "up\nTERM\n"},
		{"a trap, exec", "exec", trap, []syscall.Signal{syscall.SIGINT}, 7, "up\nINT\n"},
		{"hangup", "exec", trap, []syscall.Signal{syscall.SIGHUP}, 7, "up\nHUP\n"},
		{"what does not ask for an end", "exec", `trap "echo USR1; n=1" USR1; trap "echo $n; exit 5" QUIT; echo up; while :; do sleep 0.1; done`,
			[]syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR1, syscall.SIGQUIT}, 5, "up\nUSR1\nUSR1\n\n"},
		{"no trap", "exec", "echo up; exec sleep 600", []syscall.Signal{syscall.SIGTERM}, 143, "up\n"},
		{"a second one", "exec", deaf, []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 130, "up\n"},
		{"a second one, run", "run", deaf, []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}, 143, "up\n"},
		{"other processes of the group", "exec", `trap "wait; exit 3" TERM; (trap "echo child; exit" TERM; echo up; while :; do sleep 0.1; done) & wait; wait`,
			[]syscall.Signal{syscall.SIGTERM}, 3, "up\nchild\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := command(append(start[tt.verb], tt.script)...)
			cmd.Env = append(cmd.Env, "LUMINA_OUTPUT=ndjson")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Killed if the test hangs: what it waits for would never come.
			defer time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
			stdout, last := "", struct {
				Stream, Data string
				ExitCode     *int `json:"exit_code"`
			}{}
			signals := tt.signals
			for d := json.NewDecoder(out); d.Decode(&last) == nil; {
				if last.Stream == "stdout" {
					stdout += last.Data
				}
				last.Stream = ""
				if strings.HasPrefix(stdout, "up\n") {
					for i, s := range signals {
						if i > 0 {
							// The program takes one signal after the other; two that are
							// pending at once may come in any order.
							time.Sleep(200 * time.Millisecond)
						}
						if err := cmd.Process.Signal(s); err != nil {
							t.Fatal(err)
						}
					}
					signals = nil
				}
			}
			code := waitCode(t, cmd)
			if stdout != tt.stdout || code != tt.code || last.ExitCode == nil || *last.ExitCode != tt.code {
				t.Errorf("stdout %q, exit code %d, last %+v; want %q, %d", stdout, code, last, tt.stdout, tt.code)
			}
		})
	}
	// The terminal of exec --pty passes ^C as a byte; a signal of the program itself still
	// reaches the command.
	t.Run("with a terminal", func(t *testing.T) {
		cmd := command("exec", "--pty", "--user", "1000", sid, "echo $TERM; stat -Lc %U:%G:%a /dev/tty /proc/self/fd/0; "+trap)
		cmd.Env = slices.DeleteFunc(cmd.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") })
		terminal := withTerminal(t, cmd)
		text, buf := "", make([]byte, 4096)
		for sent := false; ; {
			n, err := terminal.Read(buf)
			if text += string(buf[:n]); err != nil {
				break // as a terminal ends
			}
			if !sent && strings.Contains(text, "up\r\n") {
				sent = true
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
		}
		code := waitCode(t, cmd)
		if code != 7 || !strings.HasPrefix(text, "xterm\r\nroot:tty:666\r\nUNKNOWN:tty:620\r\n") || !strings.HasSuffix(text, "TERM\r\n") {
			t.Errorf("exit code %d, %q", code, text)
		}
	})
	if r := lumina(t, "exec", sid, "grep -l '[w]hile :' /proc/[0-9]*/cmdline | grep -v /$$/ | wc -l").succeeded(t); r.Stdout != "0\n" {
		t.Errorf("commands that were killed go on: %s", r.Stdout)
	}
}

// Before its command began, run ends at once: there is nobody to answer.
func TestSignalDuringTheBoot(t *testing.T) {
	needsProgram(t)
	for _, tt := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		nothingLeft(t) // of what came before
		cmd := command("run", "--image", "debian", "--no-template", "echo ran")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		polltest.True(t, "its VM is there, too", func() bool { return len(processes(t)) >= 2 })
		if err := cmd.Process.Signal(tt.signal); err != nil {
			t.Fatal(err)
		}
		if code := waitCode(t, cmd); code != tt.code || out.Len() > 0 || !strings.Contains(errs.String(), "interrupted") {
			t.Errorf("%v: exit code %d, %q, %q; want %d", tt.signal, code, out.String(), errs.String(), tt.code)
		}
	}
	nothingLeft(t)
}

// withTerminal starts a command with a terminal of its own, of which it returns the other
// end.
func withTerminal(t testing.TB, cmd *exec.Cmd) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return master
}
