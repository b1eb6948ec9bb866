package session_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func TestKilledSupervisor(t *testing.T) {
	home := newHome(t)
	s := start(t, options(home))
	if err := syscall.Kill(s.Info.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	polltest.True(t, "the crash is listed", func() bool { return only(t, home).State == session.Crashed })
	if got := only(t, home).Crash.Message; got != "its supervisor was killed" {
		t.Errorf("List() says %q", got)
	}
	if n, err := session.Clean(home); n != 1 || err != nil {
		t.Errorf("Clean() = %d, %v", n, err)
	}
}

// guestCalls are all that needs a session's guest.
func guestCalls(t *testing.T, s *session.Session) map[string]func() error {
	return map[string]func() error{
		"exec":      func() error { _, err := echo(t.Context(), s); return err },
		"processes": func() error { _, err := s.Processes(t.Context()); return err },
		"logs":      func() error { return s.Logs(t.Context(), "1", true, nil, nil) },
		"kill":      func() error { return s.Kill(t.Context(), "1", syscall.SIGTERM) },
		"copy": func() error {
			_, err := s.CopyOut(t.Context(), "/etc/passwd", t.TempDir(), runtime.CopyOptions{})
			return err
		},
	}
}

// Nobody waits for a supervisor that was stopped, and it can be ended.
func TestStoppedSupervisor(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it waits for deadlines, 10 s")
	}
	t.Parallel() // most of it is waiting
	home := newHome(t)
	s := start(t, options(home))
	if err := syscall.Kill(s.Info.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	polltest.True(t, "it stops", func() bool { return states(t, s.Info.PID) == "T" })
	begin := time.Now()
	var wg sync.WaitGroup
	calls := guestCalls(t, s)
	calls["network"] = func() error { _, err := s.Network(t.Context()); return err }
	calls["forward"] = func() error { _, err := s.Forward(t.Context(), nil, nil); return err }
	calls["stop"] = func() error { _, err := session.Stop(t.Context(), home, s.Info.SID, false); return err }
	for name, do := range calls {
		wg.Go(func() {
			if err := do(); !errors.Is(err, session.ErrSilent) || !strings.Contains(err.Error(), "--force") {
				t.Errorf("%s, after %v: %v", name, time.Since(begin), err)
			}
		})
	}
	wg.Go(func() {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := echo(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("an exec that was interrupted: %v", err)
		}
	})
	wg.Go(func() {
		if got := only(t, home); got.State != session.Unreachable {
			t.Errorf("List() = %+v", got)
		}
	})
	wg.Wait()
	if _, err := session.Stop(t.Context(), home, s.Info.SID, true); err != nil {
		t.Errorf("stop --force: %v", err)
	}
	polltest.True(t, "the supervisor ends", func() bool { return strings.Trim(states(t, s.Info.PID), "ZX") == "" })
	if entries, _ := os.ReadDir(filepath.Join(home, "sessions")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// A number of a process is nobody's for long: who is not the supervisor is not killed in
// its place.
func TestForceKillsNobodyElse(t *testing.T) {
	home := newHome(t)
	s := start(t, options(home))
	other := exec.Command("cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = other.Wait(); close(ended) }()
	t.Cleanup(func() { _ = other.Process.Kill(); <-ended })
	dir := filepath.Join(home, "sessions", s.Info.SID)
	info := filepath.Join(dir, "session.json")
	good, err := os.ReadFile(info)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(good, &fields); err != nil {
		t.Fatal(err)
	}
	fields["pid"] = other.Process.Pid
	bad, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	// As of a supervisor that has closed its socket.
	if err := errors.Join(os.Remove(filepath.Join(dir, "socket")), os.WriteFile(info, bad, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{true, false} {
		if _, err := session.Stop(t.Context(), home, s.Info.SID, force); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("Stop(%v) = %v", force, err)
		}
	}
	// Who has been killed says nothing more.
	_, err = io.WriteString(in, "alive\n")
	if line, readErr := bufio.NewReader(out).ReadString('\n'); line != "alive\n" {
		t.Errorf("another process was killed: it says %q, %v, %v", line, err, readErr)
	}
	if err := os.WriteFile(info, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Stop(t.Context(), home, s.Info.SID, true); err != nil {
		t.Error(err)
	}
}

// A guest that does not answer any more, as that of a QEMU that was stopped, holds
// nobody, though its supervisor lives.
func TestStoppedGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it waits for each deadline, half a minute in all")
	}
	t.Parallel() // most of it is waiting
	home := newHome(t)
	s := start(t, options(home))
	if _, err := echo(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.Info.PID, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	polltest.True(t, "the guest is silent", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := echo(ctx, s)
		return err != nil
	})
	begin := time.Now()
	var wg sync.WaitGroup
	for name, do := range guestCalls(t, s) {
		wg.Go(func() {
			err := do()
			t.Logf("%s, after %v: %v", name, time.Since(begin).Round(time.Second), err)
			if !errors.Is(err, session.ErrSilent) || !strings.Contains(err.Error(), "guest's agent") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, after %v: %v", name, time.Since(begin), err)
			}
		})
	}
	wg.Wait()
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
