package template

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// key makes the name of a template of a test.
func key(t *testing.T, inputs ...any) string {
	t.Helper()
	k, err := Key(inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fill writes the name of each file to it.
func fill(files *Files) error {
	for i, f := range files.all() {
		if _, err := (*f).WriteString(fileNames[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestMakeThenOpen(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "a", "b"))
	k := key(t, "image", 2, true)
	if k != key(t, "image", 2, true) || k == key(t, "image", 3, true) || !isKey(k) {
		t.Errorf("keys: %q", k)
	}
	if _, err := s.Open(k); !errors.Is(err, ErrNone) {
		t.Errorf("Open() of none: %v", err)
	}
	if err := s.Make(t.Context(), k, fill); err != nil {
		t.Fatal(err)
	}
	// A second maker has nothing to do.
	if err := s.Make(t.Context(), k, func(*Files) error { return errors.New("made again") }); err != nil {
		t.Error(err)
	}
	for range 2 { // it can be opened again and again
		files, err := s.Open(k)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range files.all() {
			if b, err := io.ReadAll(*f); string(b) != fileNames[i] || err != nil {
				t.Errorf("file %s has %q, %v", fileNames[i], b, err)
			}
		}
		files.Close()
	}
	if count, bytes, err := s.Usage(); count != 1 || bytes == 0 || err != nil {
		t.Errorf("Usage() = %d, %d, %v", count, bytes, err)
	}
	if err := s.Remove(k); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(k); !errors.Is(err, ErrNone) {
		t.Errorf("Open() of a removed one: %v", err)
	}
}

// Whatever was done to a template, it is found out, and there is none afterwards.
func TestModifiedTemplates(t *testing.T) {
	tests := []struct {
		name   string
		modify func(dir string) error
		says   string
	}{
		{"a byte is written", func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("m"), 0) // what is there already
			return err
		}, `file "memory" was modified`},
		{"its time is set back", func(dir string) error {
			path := filepath.Join(dir, "state")
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte("STATE"), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, `file "state" was modified`},
		{"a file is missing", func(dir string) error { return os.Remove(filepath.Join(dir, "scratch")) }, "scratch"},
		{"a file is a link", func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "state"), filepath.Join(dir, "other")), os.Symlink("other", filepath.Join(dir, "state")))
		}, "state is damaged"},
		{"the description is damaged", func(dir string) error { return os.WriteFile(filepath.Join(dir, description), []byte("{"), 0o600) }, "damaged"},
		{"the description is another's", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, description), []byte(`{"key":"00"}`), 0o600)
		}, "damaged"},
		{"others can read it", func(dir string) error { return os.Chmod(dir, 0o755) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, k := NewStore(t.TempDir()), key(t, tt.name)
			if err := s.Make(t.Context(), k, fill); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(s.dir, k)
			if err := tt.modify(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(k); !errors.Is(err, ErrDiscarded) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Open() = %v, want ErrDiscarded with %q", err, tt.says)
			}
			if _, err := s.Open(k); !errors.Is(err, ErrNone) {
				t.Errorf("Open() once more: %v", err)
			}
			if err := s.Make(t.Context(), k, fill); err != nil {
				t.Errorf("it cannot be made anew: %v", err)
			}
		})
	}
}

// Makers race: one makes it, the others do not wait for that, and nobody sees half
// of it.
func TestMakersRace(t *testing.T) {
	s, k := NewStore(t.TempDir()), key(t)
	var made atomic.Int32
	begun, finish := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		first <- s.Make(t.Context(), k, func(files *Files) error {
			made.Add(1)
			close(begun)
			<-finish
			return fill(files)
		})
	}()
	<-begun
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Make(t.Context(), k, func(*Files) error { made.Add(1); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Open(k); !errors.Is(err, ErrNone) {
		t.Errorf("Open() of one that is being made: %v", err)
	}
	if f, ok := s.Failed(k); !ok || !strings.Contains(f.Reason, "being made") {
		t.Errorf("Failed() of one that is being made: %v, %v", f, ok)
	}
	// Nobody takes it away from its maker.
	if err := s.Clean(true); err != nil {
		t.Error(err)
	}
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := made.Load(); n != 1 {
		t.Errorf("it was made %d times", n)
	}
	if files, err := s.Open(k); err != nil {
		t.Error(err)
	} else {
		files.Close()
	}
}

func TestMakeThatFails(t *testing.T) {
	broken := errors.New("broken")
	cause := errors.New("given up")
	ctx, cancel := context.WithCancelCause(context.Background())
	tests := []struct {
		name   string
		ctx    context.Context
		fill   func(*Files) error
		want   error
		failed bool // it is not tried again soon
	}{
		{"at once", t.Context(), func(*Files) error { return broken }, broken, true},
		{"halfway", t.Context(), func(f *Files) error { return errors.Join(fill(f), broken) }, broken, true},
		{"given up", ctx, func(f *Files) error { cancel(cause); return fill(f) }, cause, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, k := NewStore(t.TempDir()), key(t)
			if err := s.Make(tt.ctx, k, tt.fill); !errors.Is(err, tt.want) {
				t.Errorf("Make() = %v, want %v", err, tt.want)
			}
			if _, failed := s.Failed(k); failed != tt.failed {
				t.Errorf("failed: %v", failed)
			}
			if _, err := s.Open(k); !errors.Is(err, ErrNone) {
				t.Errorf("Open() = %v", err)
			}
			if _, err := os.Stat(filepath.Join(s.dir, k)); err == nil {
				t.Error("half of it is left")
			}
			if err := s.Make(t.Context(), k, fill); err != nil {
				t.Errorf("it cannot be made afterwards: %v", err)
			}
		})
	}
}

// Of too many templates the ones go that were not used for the longest time.
func TestEviction(t *testing.T) {
	s := NewStore(t.TempDir())
	for i := range MaxTemplates + 2 {
		k := key(t, i)
		if err := s.Make(t.Context(), k, fill); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := os.Chtimes(filepath.Join(s.dir, k), at, at); err != nil {
			t.Fatal(err)
		}
		if i > 0 { // the first is in use
			if files, err := s.Open(key(t, 0)); err != nil {
				t.Fatalf("the template in use is gone after %d others: %v", i, err)
			} else {
				files.Close()
			}
		}
	}
	var left []string
	for i := range MaxTemplates + 2 {
		if files, err := s.Open(key(t, i)); err == nil {
			files.Close()
			left = append(left, fmt.Sprint(i))
		}
	}
	if got := strings.Join(left, " "); got != "0 3 4 5 6 7 8 9" {
		t.Errorf("left: %s", got)
	}
}

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	from, to := open("from"), open("to")
	const size = 64 << 20
	if err := from.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 10 << 20, size - 5} {
		if _, err := from.WriteAt([]byte("data!"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := CopySparse(to, from); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(from.Name())
	b, errB := os.ReadFile(to.Name())
	if err := errors.Join(errA, errB); err != nil || string(a) != string(b) {
		t.Errorf("the copy differs: %d and %d bytes, %v", len(a), len(b), err)
	}
	if info, err := to.Stat(); err != nil || allocated(info) > size/4 {
		t.Errorf("the copy takes %d bytes of the disk, %v", allocated(info), err)
	}
}
