package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLocks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	a, b, c := open(t, name), open(t, name), open(t, name)
	if err := errors.Join(Shared(a), Shared(b)); err != nil {
		t.Fatal(err)
	}
	if busy, err := TryExclusive(c); !busy || err != nil {
		t.Errorf("beside two shared locks: busy %v, %v", busy, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	given, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Exclusive(ctx, given); err != enough { // it closes what it was given
		t.Errorf("waiting with a context that has ended: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- Exclusive(t.Context(), c) }()
	a.Close()
	b.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if busy, err := TryExclusive(open(t, name)); !busy || err != nil {
		t.Errorf("beside an exclusive lock: busy %v, %v", busy, err)
	}
}

func TestNames(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	f := open(t, name)
	if !Names(name, f) {
		t.Error("it has its name")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if Names(name, f) {
		t.Error("a removed file still has its name")
	}
	if other := open(t, name); Names(name, f) || !Names(name, other) {
		t.Error("a new file took the name, and another one has it")
	}
}
