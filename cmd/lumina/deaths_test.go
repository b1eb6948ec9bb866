package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// deaths are all that can die of a session, but the client.
var deaths = []struct {
	name string
	kill func(t *testing.T, sid string)
	kind string // of the error that a running exec ends with
}{
	{"supervisor", func(t *testing.T, sid string) { kill(t, sessionPID(t, sid)) }, "session_disconnected"},
	{"QEMU", func(t *testing.T, sid string) { kill(t, childOf(t, sessionPID(t, sid))) }, "vm_crashed"},
	{"agent", func(t *testing.T, sid string) {
		// PID 1 cannot be killed by its own; but root may break it.
		_ = command("exec", sid, "--", "perl", "-e", `open my $f, "+<", "/proc/1/mem" or die; sysseek $f, 0x401000, 0; syswrite $f, "\xcc" x 3000000; kill "URG", 1`).Run()
	}, "vm_crashed"},
	{"guest kernel", func(t *testing.T, sid string) { _ = command("exec", sid, "echo c > /proc/sysrq-trigger").Run() }, "vm_crashed"},
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func sessionPID(t *testing.T, sid string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(home, "sessions", sid, "session.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal(b, &info); err != nil {
		t.Fatal(err)
	}
	return info.PID
}

// What the caller left open is nothing for a session's processes, and what its
// environment has nothing for QEMU.
func TestInheritedFiles(t *testing.T) {
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	start := command("session", "start", "--image", "debian", "--network", "none")
	start.Env = append(start.Env, "GITHUB_TOKEN=secret")
	start.ExtraFiles = []*os.File{secret, secret, secret, secret, secret, secret}
	r := finish(t, start).succeeded(t)
	defer lumina(t, "session", "stop", r.SID)
	supervisor := sessionPID(t, r.SID)
	if env := readFile(t, fmt.Sprintf("/proc/%d/environ", supervisor)); bytes.Contains(env, []byte("GITHUB_TOKEN")) {
		t.Errorf("the supervisor's environment: %q", env)
	}
	// A neighbour's QEMU is another user's.
	if other := startTestSession(t); os.Geteuid() == 0 {
		users := map[string]bool{}
		for _, pid := range []int{childOf(t, supervisor), childOf(t, sessionPID(t, other))} {
			m := regexp.MustCompile(`Uid:\t(\d+)`).FindSubmatch(readFile(t, fmt.Sprintf("/proc/%d/status", pid)))
			users[string(m[1])] = true
		}
		if len(users) != 2 || users["0"] {
			t.Errorf("users of two QEMUs: %v", users)
		}
	}
	if env := readFile(t, fmt.Sprintf("/proc/%d/environ", childOf(t, supervisor))); len(env) > 0 {
		t.Errorf("QEMU's environment: %q", env)
	}
	for _, pid := range []int{supervisor, childOf(t, supervisor)} {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(files) < 3 {
			t.Fatalf("files of process %d: %v, %v", pid, files, err)
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && to == secret.Name() {
				t.Errorf("process %d has %s as %s", pid, to, f)
			}
		}
	}
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// isGone sees that a session has crashed, that everything says so until it is stopped,
// and that then nothing is left.
func isGone(t *testing.T, sid string) {
	t.Helper()
	// A supervisor whose VM ended stays until its clients know why.
	polltest.Until(t, func() error {
		var rows []struct{ SID, Status, Error, Message string }
		err := json.Unmarshal([]byte(lumina(t, "ps").succeeded(t).stdout), &rows)
		if err == nil && (len(rows) != 1 || rows[0].SID != sid || rows[0].Status != "crashed" || rows[0].Error != "vm_crashed" || rows[0].Message == "") {
			err = fmt.Errorf("ps says %+v", rows)
		}
		return err
	})
	if got := lumina(t, "exec", sid, "true"); got.code != 125 || got.Error != "connection_failed" || !strings.Contains(got.Message, "has crashed: ") {
		t.Errorf("exec afterwards: exit code %d, %s", got.code, got.stdout)
	}
	for _, confirmed := range []string{"true", "false"} {
		if got := lumina(t, "session", "stop", sid).succeeded(t); !strings.Contains(got.stdout, `"confirmed":`+confirmed) {
			t.Errorf("stop afterwards: %s", got.stdout)
		}
	}
	nothingLeft(t)
}

func TestDeathsAtRest(t *testing.T) {
	for _, tt := range deaths {
		t.Run(tt.name, func(t *testing.T) {
			r := lumina(t, "session", "start", "--image", "debian").succeeded(t)
			tt.kill(t, r.SID)
			died := time.Now()
			isGone(t, r.SID)
			t.Logf("seen, reported and cleaned within %v", time.Since(died))
		})
	}
}

// Whatever dies, the clients learn what it was and nothing stays.
func TestDeathsDuringExec(t *testing.T) {
	for _, tt := range deaths {
		t.Run(tt.name, func(t *testing.T) {
			r := lumina(t, "session", "start", "--image", "debian").succeeded(t)
			cmd := command("exec", r.SID, "echo part; sleep 0.2; touch /ready; sleep 60")
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lumina(t, "exec", r.SID, "while [ ! -e /ready ]; do :; done").succeeded(t)
			tt.kill(t, r.SID)
			died := time.Now()
			code := waitCode(t, cmd)
			t.Logf("the exec ended %v after", time.Since(died))
			var got result
			_ = json.Unmarshal(stdout.Bytes(), &got)
			if code != 125 || got.Error != tt.kind || got.PartialStdout == nil || *got.PartialStdout != "part\n" {
				t.Errorf("exit code %d, %s; want 125, %s with partials", code, stdout.String(), tt.kind)
			}
			isGone(t, r.SID)
		})
	}
}

// A copy whose session dies, or that is interrupted, leaves nothing in
// the destination, neither under its name nor beside it.
func TestDeathsDuringCopies(t *testing.T) {
	for _, tt := range append(deaths, struct {
		name string
		kill func(t *testing.T, sid string)
		kind string
	}{name: "command"}) {
		t.Run(tt.name, func(t *testing.T) {
			r := lumina(t, "session", "start", "--image", "debian").succeeded(t)
			lumina(t, "exec", r.SID, "head -c 200M /dev/zero > /big").succeeded(t)
			dir := t.TempDir()
			cmd := command("cp", r.SID+":/big", filepath.Join(dir, "big"))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			polltest.True(t, "the copy has begun", func() bool { return len(entries(t, dir)) > 0 })
			want := 125
			if tt.kill != nil {
				tt.kill(t, r.SID)
			} else {
				_ = cmd.Process.Signal(os.Interrupt)
				want = 130
			}
			died := time.Now()
			if code := waitCode(t, cmd); code != want {
				t.Errorf("exit code %d, want %d; stderr %s", code, want, stderr.String())
			}
			t.Logf("the copy ended %v after", time.Since(died))
			if left := entries(t, dir); len(left) != 0 {
				t.Errorf("left in the destination: %v", left)
			}
			if tt.kill == nil {
				lumina(t, "exec", r.SID, "true").succeeded(t)
				lumina(t, "session", "stop", r.SID).succeeded(t)
				nothingLeft(t)
				return
			}
			isGone(t, r.SID)
		})
	}
}

// Whatever dies while a session starts, the start says so at once.
func TestDeathsDuringStart(t *testing.T) {
	needsProgram(t)
	// A guest whose kernel finds no init dies before there is an agent, one whose
	// init ends with it.
	edit(t, filepath.Join(copyImage(t, "headless"), "image.json"), `"cmdline": "`, `"cmdline": "rdinit=/nothing `)
	endInit(t, copyImage(t, "mortal"))
	for _, tt := range []struct{ name, image, process, want string }{
		{"QEMU", "debian", "qemu-system-", "QEMU ended"},
		{"supervisor", "debian", superviseCommand, "the session's supervisor died while it started"},
		{"guest kernel", "headless", "", "ended"},
		{"agent", "mortal", "", "Attempted to kill init"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := command("session", "start", "--image", tt.image)
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := 0
			for pid == 0 && tt.process != "" {
				all := processes(t)
				if !strings.Contains(strings.Join(all, "\n"), "qemu-system-") {
					continue
				}
				for _, p := range all {
					if number, line, _ := strings.Cut(p, " "); strings.Contains(line, tt.process) {
						pid, _ = strconv.Atoi(number)
					}
				}
			}
			died := time.Now()
			if pid != 0 {
				kill(t, pid)
			}
			code := waitCode(t, cmd)
			t.Logf("the start ended after %v", time.Since(died))
			var got result
			_ = json.Unmarshal(stdout.Bytes(), &got)
			if code != 125 || got.Error != "connection_failed" || !strings.Contains(got.Message, tt.want) {
				t.Errorf("exit code %d, %s; want 125, connection_failed, %q", code, stdout.String(), tt.want)
			}
			lumina(t, "clean").succeeded(t)
			nothingLeft(t)
		})
	}
}

// copyImage makes an image like the tests' and returns its directory.
func copyImage(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(home, "images", name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(home, "images", "debian"))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lumina(t, "images", "remove", name).succeeded(t) })
	return dir
}

// endInit gives an image an init that is there, and ends. The kernel unpacks one
// archive behind the other, and the last init stays.
func endInit(t *testing.T, dir string) {
	t.Helper()
	source, program := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "init")
	write(t, source, "package main\n\nfunc main() { println(\"the agent ends\") }\n")
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name := filepath.Join(dir, image.Initramfs)
	before, err := image.Digest(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	archive := bytes.NewBuffer(readFile(t, name))
	w := cpio.Newc.Writer(archive)
	if err := cpio.WriteRecords(w, []cpio.Record{cpio.StaticFile("init", string(readFile(t, program)), 0o755)}); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	write(t, name, archive.String())
	after, err := image.Digest(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	description := filepath.Join(dir, "image.json")
	edit(t, description, before.SHA256, after.SHA256)
	edit(t, description, fmt.Sprintf(`"size": %d`, before.Size), fmt.Sprintf(`"size": %d`, after.Size))
}

// edit replaces text in a file, which must have it.
func edit(t *testing.T, name, old, replacement string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q", name, old)
	}
	write(t, name, strings.Replace(string(b), old, replacement, 1))
}
