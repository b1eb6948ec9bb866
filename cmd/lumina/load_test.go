package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// usage is what a process holds.
type usage struct {
	memory      int64 // resident, KiB
	descriptors int
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return usage{memory: rss(string(status)), descriptors: len(fds)}
}

func rss(status string) int64 {
	_, rest, _ := strings.Cut(status, "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[0], 10, 64)
	return n
}

// agentUsage is that of the guest's PID 1.
func agentUsage(t *testing.T, s *session.Session) usage {
	t.Helper()
	var out bytes.Buffer
	if _, err := s.Exec(context.Background(), runtime.Command{
		Shell: "ls /proc/1/fd | wc -l; cat /proc/1/status", Stdio: runtime.Stdio{Stdout: &out}}); err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(out.String(), "\n")
	n, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	return usage{memory: rss(rest), descriptors: n}
}

// settled asks until a process has about as many descriptors as before: the
// last of a thousand connections are being closed when their execs return.
func settled(t *testing.T, before usage, now func() usage) usage {
	t.Helper()
	// No polltest: what stays is told by who compares it.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if u := now(); u.descriptors <= before.descriptors+20 || time.Now().After(deadline) {
			return u
		}
	}
}

// A thousand execs, one after the other and all at once: each right, and
// nothing stays of them in the supervisor or the agent.
func TestThousandExecs(t *testing.T) {
	sid := startTestSession(t)
	s, err := session.Open(home, sid)
	if err != nil {
		t.Fatal(err)
	}
	one := func(n int) error {
		var out, errOut bytes.Buffer
		exit, err := s.Exec(context.Background(), runtime.Command{
			Shell: fmt.Sprintf("echo %d; echo e%d >&2; exit %d", n, n, n%50),
			Stdio: runtime.Stdio{Stdout: &out, Stderr: &errOut},
		})
		if err != nil || exit.Code != n%50 || out.String() != fmt.Sprintf("%d\n", n) || errOut.String() != fmt.Sprintf("e%d\n", n) {
			return fmt.Errorf("exec %d = %+v, %q, %q, %w", n, exit, out.String(), errOut.String(), err)
		}
		return nil
	}
	atOnce := func() {
		var wg sync.WaitGroup
		for n := range 1000 {
			wg.Go(func() {
				if err := one(n); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	// What the first times take stays for the next: how many of a thousand run at
	// one moment differs from time to time, and memory goes by the most.
	atOnce()
	atOnce()
	atOnce()
	supervisor, guest := usageOf(t, s.Info.PID), agentUsage(t, s)
	for n := range 1000 {
		if err := one(n); err != nil {
			t.Fatal(err)
		}
	}
	atOnce()
	supervisorAfter, guestAfter := settled(t, supervisor, func() usage { return usageOf(t, s.Info.PID) }), settled(t, guest, func() usage { return agentUsage(t, s) })
	t.Logf("supervisor %+v, then %+v; agent %+v, then %+v", supervisor, supervisorAfter, guest, guestAfter)
	// A few descriptors and some memory come and go; a leak would be a
	// thousand, or the buffers of a thousand.
	for _, u := range []struct {
		name          string
		before, after usage
	}{{"supervisor", supervisor, supervisorAfter}, {"agent", guest, guestAfter}} {
		if u.after.descriptors > u.before.descriptors+20 || u.after.memory > u.before.memory+16<<10 {
			t.Errorf("the %s grew from %+v to %+v", u.name, u.before, u.after)
		}
	}
}

func TestTwentySessionsLeaveNothing(t *testing.T) {
	needsProgram(t)
	for range 5 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				r := lumina(t, "session", "start", "--image", "debian", "--memory", "512MB")
				if r.code != 0 {
					t.Errorf("start: %s %s", r.stdout, r.stderr)
					return
				}
				if out := lumina(t, "exec", r.SID, "echo $((6*7))"); out.Stdout != "42\n" {
					t.Errorf("exec: %s", out.stdout)
				}
				lumina(t, "session", "stop", r.SID).succeeded(t)
			})
		}
		wg.Wait()
		nothingLeft(t)
	}
}
