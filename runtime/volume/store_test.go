package volume

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

const size = 16 << 20

func TestLifeOfAVolume(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "a", "volumes"))
	if names, err := s.List(); len(names) != 0 || err != nil {
		t.Errorf("List() of no store: %q, %v", names, err)
	}
	if _, err := s.Open("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open() of none: %v", err)
	}
	if err := s.Create("data", size); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("data", size); !errors.Is(err, ErrExists) {
		t.Errorf("Create() of one that is there: %v", err)
	}
	if i, err := s.Inspect("data"); err != nil || i.Size != size || i.Used == 0 || i.Used > size || i.InUse {
		t.Errorf("Inspect() = %+v, %v", i, err)
	}
	f, err := s.Open("data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("data"); !errors.Is(err, ErrInUse) {
		t.Errorf("Open() by another VM: %v", err)
	}
	if i, err := s.Inspect("data"); err != nil || !i.InUse || i.Size != size {
		t.Errorf("Inspect() of one in use = %+v, %v", i, err)
	}
	if err := s.Remove("data"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove() of one in use: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("data"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove() once more: %v", err)
	}
}

func TestCreateThatFails(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.Create("small", 1<<20); err == nil {
		t.Error("Create() of a file system that is too small: no error")
	}
	for _, name := range []string{"", "..", "a/b", ".hidden", "-flag", "a b"} {
		if err := s.Create(name, size); err == nil {
			t.Errorf("Create(%q): no error", name)
		}
		if _, err := s.Open(name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	if left, err := os.ReadDir(s.dir); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Of those who make a volume of one name at once, one does; all can list meanwhile,
// and nobody's volume is half made.
func TestMakersRace(t *testing.T) {
	s := NewStore(t.TempDir())
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			switch err := s.Create("data", size); {
			case err == nil:
				made.Add(1)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
			if names, err := s.List(); len(names) != 1 || err != nil {
				t.Errorf("List() = %q, %v", names, err)
			}
			if err := s.Clean(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("it was made %d times", made.Load())
	}
}
