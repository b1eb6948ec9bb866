//go:build linux

package agent

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// TestKillEnded signals a process that has been waited for before its end is noted.
func TestKillEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	s.processes.all = []*process{{id: "1", pid: cmd.Process.Pid}}
	err := s.kill(&protocol.Kill{ID: "1", Signal: 9}, nil)
	var told *protocol.Error
	if !errors.As(err, &told) || told.Code != protocol.CodeNotFound {
		t.Errorf("%v, want that the process has ended", err)
	}
}
