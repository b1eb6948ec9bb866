package desktop

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// run holds a desktop as the process that runs it does, until the test ends it.
func run(t *testing.T, s *Store, m *Manifest) (end func()) {
	t.Helper()
	lock, err := s.hold(m)
	if err == nil {
		err = names(lock)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { lock.Close() }
}

func TestChange(t *testing.T) {
	ctx := t.Context()
	s := NewStore(t.TempDir())
	a := create(t, s, "a")
	create(t, s, "b")
	ptr := func(n int64) *int64 { return &n }
	cpus, none, mode := 4, NoISO, network.Mode("none")
	m, err := s.Change(ctx, "a", Change{CPUs: &cpus, Memory: ptr(1<<30 + 1), DiskSize: ptr(100 << 30), ISO: &none, Network: &mode})
	if err != nil || m.CPUs != 4 || m.Memory != 1<<30+1<<20 || m.DiskSize != 100<<30 || m.Network != "none" || m.ISO != "" || m.ID != a.ID || m.MAC != a.MAC {
		t.Fatalf("%+v, %v", m, err)
	}
	if again, err := s.Find("a"); err != nil || again.CPUs != 4 || again.DiskSize != 100<<30 {
		t.Errorf("read again: %+v, %v", again, err)
	}
	if info, err := os.Stat(filepath.Join(s.path(a.ID), diskFile)); err != nil || info.Size() != 100<<30 {
		t.Errorf("its disk: %v, %v", info, err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	zero, many, other, bad, lan := 0, runtime.MaxCPUs+1, "b", "a/b", network.Mode("everything")
	for name, tt := range map[string]struct {
		change Change
		want   error
		says   string
	}{
		"no CPU":          {Change{CPUs: &zero}, ErrChange, "want 1 to 64"},
		"many CPUs":       {Change{CPUs: &many}, ErrChange, "want 1 to 64"},
		"little memory":   {Change{Memory: ptr(1)}, ErrChange, "at least 64 MB"},
		"negative memory": {Change{Memory: ptr(-1)}, ErrChange, "at least 64 MB"},
		"much memory":     {Change{Memory: ptr(1 << 60)}, ErrChange, "this host has"},
		"a smaller disk":  {Change{DiskSize: ptr(1 << 30)}, ErrChange, "only grows"},
		"a tiny disk":     {Change{DiskSize: ptr(1 << 10)}, ErrChange, "want 16 MB"},
		"a huge disk":     {Change{DiskSize: ptr(1 << 60)}, ErrChange, "16 TB"},
		"no ISO":          {Change{ISO: &text}, ErrChange, "not an ISO 9660 image"},
		"no second ISO":   {Change{Drivers: &text}, ErrChange, "not an ISO 9660 image"},
		"a network":       {Change{Network: &lan}, ErrChange, "everything"},
		"a name":          {Change{Name: &bad}, ErrName, "without slashes"},
		"another's name":  {Change{Name: &other}, ErrExists, "already exists"},
		// All or nothing.
		"one of two": {Change{CPUs: &zero, Name: &none}, ErrChange, "want 1 to 64"},
	} {
		if _, err := s.Change(ctx, "a", tt.change); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want one that says %q", name, err, tt.says)
		}
		if m, err := s.Find("a"); err != nil || m.CPUs != 4 || m.DiskSize != 100<<30 {
			t.Errorf("%s: it is now %+v, %v", name, m, err)
		}
	}
	end := run(t, s, a)
	if _, err := s.Change(ctx, "a", Change{CPUs: &cpus}); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "desktop stop a") {
		t.Errorf("of one that runs: %v", err)
	}
	end()
	if m, err := s.Rename(ctx, "a", "c"); err != nil || m.Name != "c" || m.ID != a.ID {
		t.Errorf("renamed: %+v, %v", m, err)
	}
	if _, err := s.Find("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("its old name: %v", err)
	}
}

// A clone has the disk, firmware and TPM of what it is of, and is another machine. What
// one changes the other does not see.
func TestCloneDesktop(t *testing.T) {
	ctx := t.Context()
	s := NewStore(t.TempDir())
	m, err := s.Create(ctx, firmware{}, Manifest{Name: "a", Architecture: "amd64", TPM: true, DiskSize: 1 << 30, CPUs: 3}, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := s.path(m.ID)
	// What the guest wrote might look like an image of another format, with a file of
	// the host's behind it.
	content := append([]byte("QFI\xfb"), bytes.Repeat([]byte("x"), 1<<20)...)
	disk, err := os.OpenFile(filepath.Join(dir, diskFile), os.O_RDWR, 0)
	if err == nil {
		_, err = disk.WriteAt(content, 0)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, tpmFile), []byte("secret"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	end := run(t, s, m)
	if _, err := s.Clone(ctx, firmware{}, "a", "b"); !errors.Is(err, ErrRunning) {
		t.Errorf("of one that runs: %v", err)
	}
	end()
	b, err := s.Clone(ctx, firmware{}, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if b.ID == m.ID || b.MAC == m.MAC || b.MAC == "" || b.Name != "b" || b.CPUs != 3 || b.DiskSize != 1<<30 || b.LastBooted != nil {
		t.Errorf("%+v of %+v", b, m)
	}
	read := func(name string) string {
		t.Helper()
		f, err := os.Open(filepath.Join(s.path(b.ID), name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := make([]byte, len(content))
		n, _ := f.ReadAt(p, 0)
		return string(p[:n])
	}
	if _, err := disk.WriteAt([]byte("later"), 0); err != nil {
		t.Fatal(err)
	}
	if read(diskFile) != string(content) || read(tpmFile) != "secret" || read(variablesFile) != "variables" {
		t.Error("the clone has something else")
	}
	if info, err := os.Stat(filepath.Join(s.path(b.ID), diskFile)); err != nil || info.Size() != 1<<30 || info.Mode().Perm() != 0o600 {
		t.Errorf("its disk: %v, %v", info, err)
	}
	if size, err := allocated(s.path(b.ID)); err != nil || size > 4<<20 {
		t.Errorf("it takes %d bytes, %v", size, err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := s.Clone(ctx, firmware{}, "a", name); !errors.Is(err, ErrExists) {
			t.Errorf("again as %s: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	// Where the file system shares blocks, it is done before anybody can give it up.
	if _, err := s.Clone(ended, firmware{}, "a", "c"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

func TestSetAside(t *testing.T) {
	s := NewStore(t.TempDir())
	a, b := create(t, s, "a"), create(t, s, "b")
	end := run(t, s, a)
	if _, err := s.SetAside("a"); !errors.Is(err, ErrRunning) {
		t.Errorf("of one that runs: %v", err)
	}
	end()
	r, err := s.SetAside("a")
	if err != nil || r.Until().Sub(r.At) != UndoTime {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.Find("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	nextMillisecond(r.At)
	if _, err := s.SetAside("b"); err != nil {
		t.Fatal(err)
	}
	all, err := s.Removed()
	if err != nil || len(all) != 2 || all[0].ID != b.ID || all[1].Name != "a" {
		t.Fatalf("removed are %+v, %v", all, err)
	}
	// Its name may be another's meanwhile.
	other := create(t, s, "a")
	if _, err := s.Restore("a", ""); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "another name") {
		t.Errorf("its name is taken: %v", err)
	}
	if m, err := s.Restore("a", "old"); err != nil || m.ID != a.ID || m.Name != "old" || m.MAC != a.MAC {
		t.Errorf("under another: %+v, %v", m, err)
	}
	if m, err := s.Restore(b.ID[:8], ""); err != nil || m.Name != "b" {
		t.Errorf("by its identifier: %+v, %v", m, err)
	}
	for _, id := range []string{"b", "", "nobody"} {
		if _, err := s.Restore(id, ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("restoring %q: %v", id, err)
		}
	}
	// Of two of a name the last one comes back first.
	if _, err := s.SetAside(other.ID); err != nil {
		t.Fatal(err)
	}
	last := create(t, s, "a")
	nextMillisecond(time.Now())
	if _, err := s.SetAside("a"); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Restore("a", ""); err != nil || m.ID != last.ID {
		t.Errorf("%+v, %v, want %s", m, err, last.ID)
	}
	// What is newer stays, the rest goes, also what has no manifest any more.
	if err := os.Mkdir(filepath.Join(s.dir, aside+"1-damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(time.Now().Add(-UndoTime)); err != nil {
		t.Error(err)
	}
	if all, err := s.Removed(); err != nil || len(all) != 1 || all[0].ID != other.ID {
		t.Errorf("left are %+v, %v", all, err)
	}
	if freed, err := s.Purge(time.Now()); err != nil || freed == 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if all, err := s.List(); err != nil || len(all) != 3 {
		t.Errorf("there are %v, %v", all, err)
	}
}

// nextMillisecond waits until the clock shows a later millisecond than after: that is
// what orders removed desktops.
func nextMillisecond(after time.Time) {
	for time.Now().UnixMilli() == after.UnixMilli() {
		time.Sleep(time.Millisecond)
	}
}
