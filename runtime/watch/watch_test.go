package watch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Add(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	changes, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		for {
			if err := w.Next(func(at, name string) {
				if at != dir {
					t.Errorf("a change in %s", at)
				}
				changes <- name
			}); err != nil {
				ended <- err
				return
			}
		}
	}()
	seen := func(what, name string) {
		t.Helper()
		for {
			select {
			case got := <-changes:
				if got == "" || got == name {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s is no change", what)
			}
		}
	}
	name := filepath.Join(dir, "a")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	seen("a file", "a")
	if err := os.Rename(name, filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	seen("its new name", "b")
	// What grows is silent: only what comes after it is seen.
	if _, err := f.WriteString("grows"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := <-changes; !slices.Contains([]string{"", "c"}, got) {
		t.Errorf("a file that grows is a change: %q", got)
	}
	f.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the end is %v", err)
	}
}
