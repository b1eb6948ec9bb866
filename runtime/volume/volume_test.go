package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/flock"
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

// A volume's disk itself is not locked: the hypervisor of a Mac locks it. Another
// process finds it in use all the same, as long as somebody has the lock.
func TestLockIsBesideTheDisk(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.Create("data", 64<<20); err != nil {
		t.Fatal(err)
	}
	d, err := s.Open("data")
	if err != nil {
		t.Fatal(err)
	}
	hypervisor, err := os.OpenFile(s.path("data"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hypervisor.Close()
	if busy, err := flock.TryExclusive(hypervisor); busy || err != nil {
		t.Errorf("the hypervisor cannot lock the disk: busy %v, %v", busy, err)
	}
	// The VM keeps the lock, as a driver does, when the one who opened it lets go.
	fd, err := syscall.Dup(int(d.Lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	kept := os.NewFile(uintptr(fd), "kept")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("data"); !errors.Is(err, ErrInUse) {
		t.Errorf("a second VM: %v, want ErrInUse", err)
	}
	if err := s.Remove("data"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove: %v, want ErrInUse", err)
	}
	if i, err := s.Inspect("data"); err != nil || !i.InUse {
		t.Errorf("Inspect: %+v, %v", i, err)
	}
	kept.Close()
	if names, err := s.List(); err != nil || !slices.Equal(names, []string{"data"}) {
		t.Errorf("volumes %q, %v", names, err)
	}
	if err := s.Remove("data"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open of what is removed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A lock that outlived its volume goes, that of one which is there stays.
func TestCleanRemovesLocks(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.Create("kept", 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "gone"} {
		if err := os.WriteFile(s.lockPath(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Clean(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*"+lockExtension)); !slices.Equal(left, []string{s.lockPath("kept")}) {
		t.Errorf("locks %q", left)
	}
}

// Sizes that are no whole sectors are rounded up, also of what an older lumina made.
func TestSizes(t *testing.T) {
	s := NewStore(t.TempDir())
	for _, size := range []int64{64<<20 + 1, 1395864371} { // 1.3GB
		if err := s.Create("data", size); err != nil {
			t.Fatal(err)
		}
		i, err := s.Inspect("data")
		if err != nil || i.Size%(1<<20) != 0 || i.Size < size || i.Size > size+1<<20 {
			t.Errorf("%d bytes became %d, %v", size, i.Size, err)
		}
		if err := s.Remove("data"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Create("old", 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path("old"), 64<<20-5); err != nil {
		t.Fatal(err)
	}
	d, err := s.Open("old")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info, err := d.Stat(); err != nil || info.Size() != 64<<20 {
		t.Errorf("the old one has %d bytes, %v", info.Size(), err)
	}
}

// What has a volume's name, or its lock's, and is no file is no disk of a VM. It is told
// and can be removed, a link does not lead out, and the other volumes are listed.
func TestDamagedVolumes(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for kind, put := range map[string]func(path string) error{
		"FIFO":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"device":        func(path string) error { return os.Symlink("/dev/zero", path) },
		"dangling link": func(path string) error { return os.Symlink(outside, path) },
		"link to a file": func(path string) error {
			return errors.Join(os.WriteFile(filepath.Join(filepath.Dir(path), "elsewhere"), []byte("content"), 0o600), os.Symlink("elsewhere", path))
		},
		"link to itself": func(path string) error { return os.Symlink(filepath.Base(path), path) },
	} {
		for _, extension := range []string{extension, lockExtension} {
			t.Run(kind+extension, func(t *testing.T) {
				s := NewStore(t.TempDir())
				for _, name := range []string{"a", "b"} {
					if err := s.Create(name, 16<<20); err != nil {
						t.Fatal(err)
					}
				}
				path := filepath.Join(s.dir, "a"+extension)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if err := put(path); err != nil {
					t.Fatal(err)
				}
				if d, err := s.Open("a"); err == nil {
					d.Close()
					t.Error("Open() = nil")
				}
				all, err := s.InspectAll()
				if err != nil || len(all) != 2 || all[0].Error == "" || all[1].Error != "" || all[1].Size != 16<<20 {
					t.Errorf("InspectAll() = %+v, %v", all, err)
				}
				if err := s.Remove("a"); err != nil {
					t.Errorf("Remove() = %v", err)
				}
				if names, err := s.List(); len(names) != 1 || err != nil {
					t.Errorf("after Remove(): %q, %v", names, err)
				}
				if b, err := os.ReadFile(filepath.Join(s.dir, "elsewhere")); kind == "link to a file" && (err != nil || string(b) != "content") {
					t.Errorf("what the link leads to: %q, %v", b, err)
				}
				if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("where the link leads: %v", err)
				}
			})
		}
	}
}

// What a VM may only read nobody can write to by way of its file; it is for one VM at a
// time, too.
func TestOpenReadOnly(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.Create("data", size); err != nil {
		t.Fatal(err)
	}
	d, err := s.OpenReadOnly("data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if n, err := d.ReadAt(make([]byte, 4096), 0); n != 4096 || err != nil {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
	for _, open := range []func(string) (*Disk, error){s.Open, s.OpenReadOnly} {
		if _, err := open("data"); !errors.Is(err, ErrInUse) {
			t.Errorf("a second VM: %v, want ErrInUse", err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenReadOnly("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
}

// Who waits for a volume is woken by the end of its VM, and by the end of its own
// context.
func TestWait(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.Create("data", 16<<20); err != nil {
		t.Fatal(err)
	}
	d, err := s.Open("data")
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := s.Wait(ctx, "data"); !errors.Is(err, cause) {
		t.Errorf("after the end of its context: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- s.Wait(t.Context(), "data") }()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := s.Wait(t.Context(), "none"); err != nil {
		t.Errorf("for a volume that is not there: %v", err)
	}
}
