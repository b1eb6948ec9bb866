package desktop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A desktop whose manifest cannot be read keeps no other from anything, is named with
// what is wrong, and can be removed.
func TestDamagedDesktop(t *testing.T) {
	const id = "01234567-89ab-4cde-8f01-23456789abcd"
	write := func(content string) func(string) error {
		return func(file string) error { return os.WriteFile(file, []byte(content), 0o600) }
	}
	for name, tt := range map[string]struct {
		put  func(file string) error
		want string
	}{
		"a FIFO":      {func(file string) error { return syscall.Mkfifo(file, 0o600) }, "it is a FIFO"},
		"a directory": {func(file string) error { return os.Mkdir(file, 0o700) }, "it is a directory"},
		"a link":      {func(file string) error { return os.Symlink("/dev/zero", file) }, "it is a link"},
		"cut":         {write(`{"id":`), "unexpected end"},
		"too long":    {write(strings.Repeat(" ", maxManifest+1)), "it is longer"},
		"missing":     {func(string) error { return nil }, "it has no manifest.json"},
		"newer":       {write(`{"schemaVersion":99}`), "use a newer lumina"},
	} {
		for _, odd := range []bool{false, true} {
			s := NewStore(t.TempDir())
			create(t, s, "a")
			dir := s.path(id)
			err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, diskFile), []byte("data"), 0o600), tt.put(filepath.Join(dir, manifestFile)))
			if odd { // what is no directory is none of ours, and breaks nothing
				err = errors.Join(err, syscall.Mkfifo(s.path("fifo"), 0o600), os.WriteFile(s.path("file"), nil, 0o600), syscall.Mkfifo(filepath.Join(dir, lockFile), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			create(t, s, "b")
			if _, err := s.Create(t.Context(), firmware{}, Manifest{Name: "a", Architecture: "amd64"}, ""); !errors.Is(err, ErrExists) {
				t.Errorf("%s: a second a: %v", name, err)
			}
			if _, err := s.Rename(t.Context(), "b", "c"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.Clone(t.Context(), firmware{}, "a", "d"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.SetAside("d"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if all, err := s.List(); err != nil || len(all) != 2 {
				t.Errorf("%s: List() = %d, %v", name, len(all), err)
			}
			for _, typed := range []string{id, id[:6], dir} {
				var d *DamagedError
				if _, err := s.Find(typed); !errors.As(err, &d) || d.ID != id || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: Find(%q): %v", name, typed, err)
				}
			}
			if left, err := s.CleanDamaged(); err != nil || len(left) != 1 || left[0].ID != id {
				t.Errorf("%s: clean left %v, %v", name, left, err)
			}
			if err := s.Remove(id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if left, err := s.Damaged(); err != nil || len(left) != 0 {
				t.Errorf("%s: %v, %v", name, left, err)
			}
			if all, err := s.List(); err != nil || len(all) != 2 {
				t.Errorf("%s: List() = %d, %v", name, len(all), err)
			}
		}
	}
}

// An empty directory goes with the next clean; a damaged desktop that runs is not removed.
func TestDamagedDesktopsThatStay(t *testing.T) {
	s := NewStore(t.TempDir())
	running := create(t, s, "running")
	held, err := s.hold(running)
	if err == nil {
		_, err = held.WriteString("1")
	}
	if err := errors.Join(err, os.Remove(filepath.Join(s.path(running.ID), manifestFile)), os.Mkdir(s.path("empty"), 0o700)); err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := s.Remove(running.ID); !errors.Is(err, ErrRunning) {
		t.Errorf("Remove() = %v", err)
	}
	if left, err := s.CleanDamaged(); err != nil || len(left) != 1 || left[0].ID != running.ID {
		t.Errorf("clean left %v, %v", left, err)
	}
	if _, err := os.Lstat(s.path("empty")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty directory: %v", err)
	}
}
