package template

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What is no template's is not removed, and a FIFO is not waited for.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir)
	key, err := Key("a")
	if err != nil {
		t.Fatal(err)
	}
	keep := []string{filepath.Join(dir, "mine", "precious"), filepath.Join(dir, "notes.lock"), filepath.Join(dir, "x.failed")}
	for _, name := range keep {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	damaged := filepath.Join(dir, key)
	if err := errors.Join(os.Mkdir(damaged, 0o700), syscall.Mkfifo(filepath.Join(damaged, description), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(key); !errors.Is(err, ErrDiscarded) {
		t.Errorf("Open() of a FIFO: %v", err)
	}
	if err := errors.Join(s.evict(0), s.Clean(true)); err != nil {
		t.Error(err)
	}
	for _, name := range keep {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("it was removed: %v", err)
		}
	}
	if _, err := os.Stat(damaged); err == nil {
		t.Error("a damaged template is there")
	}
}
