package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Clean removes what a maker left that was killed, and nothing of one that lives.
func TestClean(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "volumes"))
	if err := s.Clean(); err != nil {
		t.Errorf("Clean() of nothing = %v", err)
	}
	if err := s.Create("kept", 64<<20); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(s.dir, unfinished+"dead")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	alive, err := s.makeTemp()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if err := s.Clean(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a dead maker left is there: %v", err)
	}
	if _, err := os.Stat(alive.Name()); err != nil {
		t.Errorf("what is being made is gone: %v", err)
	}
	if names, err := s.List(); len(names) != 1 || err != nil {
		t.Errorf("volumes %q, %v", names, err)
	}
}
