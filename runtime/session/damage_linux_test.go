package session_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/session"
)

// What is damaged is told in one line and mended, and nothing is waited for.
func TestDamage(t *testing.T) {
	home := newHome(t)
	damages := map[string]func(t *testing.T, file string) error{
		"cut off":   func(t *testing.T, file string) error { return os.Truncate(file, 20) },
		"empty":     func(t *testing.T, file string) error { return os.Truncate(file, 0) },
		"gone":      func(t *testing.T, file string) error { return os.Remove(file) },
		"directory": func(t *testing.T, file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) },
		"FIFO": func(t *testing.T, file string) error {
			return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600))
		},
		"link": func(t *testing.T, file string) error {
			return errors.Join(os.Remove(file), os.Symlink("/dev/zero", file))
		},
		"other": func(t *testing.T, file string) error {
			return os.WriteFile(file, []byte(`{"sid":"x","protocol":2,"ready":true}`), 0o600)
		},
		"no object": func(t *testing.T, file string) error { return os.WriteFile(file, []byte(`[1]`), 0o600) },
		"endless":   func(t *testing.T, file string) error { return os.Truncate(file, 1<<40) },
	}
	s := start(t, options(home))
	file := filepath.Join(home, "sessions", s.Info.SID, "session.json")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			if err := damage(t, file); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, good, 0o600)); err != nil {
					t.Fatal(err)
				}
			}()
			// The supervisor knows what the file should say.
			again, err := session.Open(home, s.Info.SID)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := echo(t.Context(), again); out != "hello\n" {
				t.Errorf("a command = %q, %v", out, err)
			}
			if got := only(t, home); got.State != session.Running || got.Image != "img" {
				t.Errorf("List() = %+v", got)
			}
			// A directory whose supervisor is dead.
			dead := filepath.Join(home, "sessions", "11111111-2222-4333-8444-555555555555")
			if err := os.Mkdir(dead, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"session.json", "end.json", "lock"} {
				if err := os.WriteFile(filepath.Join(dead, name), good, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := damage(t, filepath.Join(dead, name)); err != nil {
					t.Fatal(err)
				}
			}
			if all, err := session.List(t.Context(), home); err != nil || len(all) > 2 {
				t.Errorf("List() = %v, %v", all, err)
			}
			if s, err := session.Open(home, filepath.Base(dead)); err == nil {
				if _, err = echo(t.Context(), s); err == nil || strings.Contains(err.Error(), "\n") {
					t.Errorf("a command in a dead one: %v", err)
				}
			}
			if _, err := session.Clean(home); err != nil {
				t.Error(err)
			}
			_ = os.Remove(dead) // which holds nothing when all was gone
			if _, err := os.Lstat(dead); err == nil {
				t.Error("Clean() left it")
			}
		})
	}
}

// What is no session's is not touched, and no link is followed.
func TestForeignFiles(t *testing.T) {
	home := newHome(t)
	dir := filepath.Join(home, "sessions")
	elsewhere := t.TempDir()
	keep := []string{
		filepath.Join(dir, "notes", "session.json"),
		filepath.Join(dir, "NOTES.txt"),
		filepath.Join(dir, "11111111-2222-4333-8444-000000000001", "precious"),                 // a SID, and no session
		filepath.Join(dir, "11111111-2222-4333-8444-000000000002", "precious"),                 // beside a session's files
		filepath.Join(dir, ".gone-11111111-2222-4333-8444-000000000003", "precious"),           // of a removal
		filepath.Join(dir, "11111111-2222-4333-8444-000000000004", "session.json", "precious"), // in their place
		filepath.Join(elsewhere, "session.json"),
	}
	for _, name := range keep {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	links := []string{filepath.Join(dir, "11111111-2222-4333-8444-000000000005")}
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "11111111-2222-4333-8444-000000000002", "lock"), nil, 0o600),
		os.Symlink(elsewhere, links[0]),
		os.MkdirAll(filepath.Join(dir, "11111111-2222-4333-8444-000000000006"), 0o700),
		os.Symlink(filepath.Join(elsewhere, "session.json"), filepath.Join(dir, "11111111-2222-4333-8444-000000000006", "session.json")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := session.List(t.Context(), home); err != nil {
			t.Error(err)
		}
		_, _ = session.Clean(home) // it says what it leaves
		for _, sid := range []string{"11111111-2222-4333-8444-000000000002", "11111111-2222-4333-8444-000000000005"} {
			_, _ = session.Stop(t.Context(), home, sid, true)
		}
	}
	for _, name := range append(keep, links...) {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("it was removed: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "11111111-2222-4333-8444-000000000006")); err == nil {
		t.Error("a session whose description is a link was left")
	}
}
