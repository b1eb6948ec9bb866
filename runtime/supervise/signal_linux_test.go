package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that has ended, and for which nobody has waited yet, needs no signal: it is
// neither another process nor one that may not be looked at, which only root may.
func TestSignalAfterTheEnd(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := Signal(pid, lock, syscall.SIGKILL); err != nil {
		t.Errorf("before it was waited for: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := Signal(pid, lock, syscall.SIGKILL); err != nil {
		t.Errorf("after: %v", err)
	}
	if err := Signal(os.Getppid(), lock, 0); err == nil || !strings.Contains(err.Error(), "another") && !os.IsPermission(err) {
		t.Errorf("another process: %v", err)
	}
}
