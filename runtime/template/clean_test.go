package template

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// What is in the place of a template or of its files is not waited for or followed: a
// template is made anew, and Clean removes what was there, and nothing elsewhere.
func TestOddTemplates(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, description), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("a", 32)
	puts := map[string]func(path string) error{
		"FIFO": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link": func(path string) error { return os.Symlink(outside, path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"full directory": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
		},
	}
	for kind, put := range puts {
		for _, file := range append([]string{".", description}, fileNames[:]...) {
			t.Run(kind+" "+file, func(t *testing.T) {
				for _, clean := range []bool{false, true} {
					s := NewStore(t.TempDir())
					if err := s.Make(t.Context(), key, func(*Files) error { return nil }); err != nil {
						t.Fatal(err)
					}
					path := filepath.Join(s.dir, key, file)
					if err := errors.Join(os.RemoveAll(path), put(path)); err != nil {
						t.Fatal(err)
					}
					if clean {
						if err := s.Clean(true); err != nil {
							t.Errorf("Clean() = %v", err)
						}
						if entries, err := os.ReadDir(s.dir); len(entries) != 0 || err != nil {
							t.Errorf("after Clean(): %v, %v", entries, err)
						}
						continue
					}
					if f, err := s.Open(key); err == nil {
						f.Close()
						t.Error("Open() = nil")
					}
					if err := s.Make(t.Context(), key, func(*Files) error { return nil }); err != nil {
						t.Errorf("Make() = %v", err)
					}
					f, err := s.Open(key)
					if err != nil {
						t.Fatalf("Open() of what was made anew = %v", err)
					}
					f.Close()
				}
				if _, err := os.Lstat(filepath.Join(outside, description)); err != nil {
					t.Errorf("where the link leads: %v", err)
				}
			})
		}
	}
}

// A lock that is a link is not followed: a file elsewhere is not made, and not locked.
func TestLockThatIsALink(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "templates"))
	outside := filepath.Join(t.TempDir(), "outside")
	key := strings.Repeat("a", 32)
	put := func() {
		if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.Symlink(outside, filepath.Join(s.dir, key+".lock"))); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if err := s.Make(t.Context(), key, func(*Files) error { return nil }); err != nil {
		t.Errorf("Make() = %v", err)
	}
	put()
	if err := s.Clean(true); err != nil {
		t.Errorf("Clean() = %v", err)
	}
	if entries, err := os.ReadDir(s.dir); len(entries) != 0 || err != nil {
		t.Errorf("after Clean(): %v, %v", entries, err)
	}
	if _, err := os.Lstat(outside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the link leads to was made: %v", err)
	}
}

// Processes that clean at the same time do not fail each other.
func TestCleanersRace(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir)
	for n := range 60 {
		key, err := Key(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, key+".lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Clean(false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
