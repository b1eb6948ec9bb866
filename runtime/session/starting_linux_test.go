package session_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// A session whose VM does not come up is listed, named, and can be stopped.
func TestStarting(t *testing.T) {
	home := newHome(t)
	o := options(home)
	o.Name = "slow"
	failed := make(chan error, 1)
	program, _ := os.Executable()
	go func() {
		_, err := session.Start(t.Context(), program, []string{supervise, silent}, o)
		failed <- err
	}()
	polltest.True(t, "it is listed", func() bool {
		all, _ := session.List(t.Context(), home)
		if len(all) == 1 && (all[0].State != session.Starting || all[0].Name != "slow") {
			t.Errorf("List() = %+v", all[0])
		}
		return len(all) == 1
	})
	if s, err := session.Open(home, "slow"); err == nil {
		if _, err = echo(t.Context(), s); err == nil || !strings.Contains(err.Error(), "it is starting") {
			t.Errorf("a command: %v", err)
		}
	}
	if _, err := session.Stop(t.Context(), home, "slow", false); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the start did not notice")
	}
}

// A start that is killed before it was told of its session leaves none: nobody knows it.
func TestKilledStarter(t *testing.T) {
	home := newHome(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starts := exec.Command(program, starter, home)
	if err := starts.Start(); err != nil {
		t.Fatal(err)
	}
	defer starts.Wait()
	defer starts.Process.Kill()
	polltest.True(t, "it is listed", func() bool {
		all, _ := session.List(t.Context(), home)
		return len(all) == 1
	})
	if err := starts.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	polltest.True(t, "it has ended and leaves nothing", func() bool {
		left, err := os.ReadDir(filepath.Join(home, "sessions"))
		return err == nil && len(left) == 0
	})
}
