//go:build linux

package agent

import (
	"errors"
	"io"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

func TestRehearse(t *testing.T) {
	configured := make(chan struct{})
	n := 0
	rehearse(configured, func() error {
		if n++; n == 3 {
			close(configured)
		}
		return nil
	})
	if n != 3 {
		t.Errorf("there were %d rehearsals, want 3: until it is configured", n)
	}
	n = 0
	rehearse(make(chan struct{}), func() error {
		n++
		return errors.New("no shell")
	})
	if n != 1 {
		t.Errorf("there were %d rehearsals without a shell, want 1", n)
	}
}

// A rehearsal is nothing that the host would see.
func TestRunNothing(t *testing.T) {
	s := NewServer(fakeSystem{}, reaper())
	if err := s.runNothing(); err != nil {
		t.Fatal(err)
	}
	if list := s.processes.list(); len(list.Processes) != 0 {
		t.Errorf("it is listed: %v", list)
	}
}

// Only a guest that was booted to rehearse does.
func TestRehearsesAsItWasBooted(t *testing.T) {
	for _, want := range []bool{false, true} {
		s := NewServer(fakeSystem{}, reaper())
		s.Rehearses, s.template = want, true
		<-s.configure // as one that was configured
		if err := s.prepareSnapshot(protocol.NewWriter(io.Discard)); err != nil {
			t.Fatal(err)
		}
		if got := s.rehearsal != nil; got != want {
			t.Errorf("rehearses: %v, want %v", got, want)
		}
		if s.rehearsal != nil {
			close(s.rehearsal)
		}
	}
}
