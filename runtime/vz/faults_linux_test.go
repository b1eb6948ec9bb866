package vz

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// faulty is a driver over a framework in memory that is to do something odd.
func faulty(t *testing.T) (*Driver, *inMemory) {
	f := &inMemory{simulation: &simulation{log: t.Logf}}
	return &Driver{framework: f, cacheDir: t.TempDir()}, f
}

// begun is a machine that is killed when the test ends.
func begun(t *testing.T, d *Driver, spec vm.Spec) vm.Machine {
	t.Helper()
	m, err := d.Start(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		<-m.Done()
	})
	return m
}

// The framework opens files by name: one without, or whose name is another's by now,
// is refused before there is a machine.
func TestNamelessFiles(t *testing.T) {
	d, f := faulty(t)
	for name, tt := range map[string]struct {
		of     func(*vm.Spec) *os.File
		change func(path string) error
	}{
		"a disk without a name":      {func(s *vm.Spec) *os.File { return s.Disks[len(s.Disks)-1].File }, os.Remove},
		"an initramfs without one":   {func(s *vm.Spec) *os.File { return s.Initramfs }, os.Remove},
		"a kernel that was replaced": {func(s *vm.Spec) *os.File { return s.Kernel }, func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, nil, 0o600)) }},
	} {
		spec := memorySpec(t)
		file := tt.of(&spec)
		if err := tt.change(file.Name()); err != nil {
			t.Fatal(err)
		}
		if m, err := d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "removed or replaced") {
			if err == nil {
				m.Kill()
			}
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.made) > 0 {
		t.Errorf("%d machines were made", len(f.made))
	}
}

// A start that fails for a locked disk has told the machine's end: the machine that
// starts then has not ended.
func TestLockedAtStart(t *testing.T) {
	d, f := faulty(t)
	f.lateLock = true
	spec := memorySpec(t)
	held, err := os.Open(spec.Disks[len(spec.Disks)-1].File.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*lockPause, func() { held.Close() })
	m := begun(t, d, spec)
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case <-m.Done():
		t.Errorf("it has ended: %v", m.Err())
	case <-time.After(2 * lockPause):
	}
	if len(f.made) < 2 {
		t.Errorf("%d machines were made: the disk was not locked", len(f.made))
	}
}

// A framework that does not answer is not waited for longer than the caller wishes. What
// it starts later is stopped.
func TestStartUnanswered(t *testing.T) {
	d, f := faulty(t)
	f.slow = make(chan struct{})
	tired := errors.New("out of patience")
	ctx, cancel := context.WithTimeoutCause(t.Context(), lockPause, tired)
	defer cancel()
	if m, err := d.Start(ctx, memorySpec(t)); !errors.Is(err, tired) || strings.Contains(err.Error(), "answer") {
		if err == nil {
			m.Kill()
		}
		t.Errorf("%v, want the cause of the context's end", err)
	}
	made := f.made[0]
	if _, err := made.c.console.out.Stat(); err != nil {
		t.Errorf("the console was closed before the machine has ended: %v", err)
	}
	close(f.slow)
	<-made.stopped
}

// A machine that is being saved does not stop; it is asked until it does.
func TestKillWhileSaving(t *testing.T) {
	d, f := faulty(t)
	spec := memorySpec(t)
	s := snapshot(t)
	dir := filepath.Dir(s.State.Name())
	stale := filepath.Join(dir, "state.vz") // of a maker that was killed
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := d.Save(ctx, spec, s, func(context.Context, vm.Machine) error {
		slow := make(chan struct{})
		f.made[0].slow = slow
		time.AfterFunc(lockPause, cancel)
		time.AfterFunc(3*lockPause, func() { close(slow) })
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Save: %v, want that it was cancelled", err)
	}
	select {
	case <-f.made[0].stopped:
	default:
		t.Error("the machine has not been stopped")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.vz*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A machine that the framework does not stop keeps its files: others would get their
// numbers, and be its console and network.
func TestFilesOfAMachineThatIsGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it waits for a deadline, 10 s")
	}
	t.Parallel()
	d, f := faulty(t)
	m := begun(t, d, memorySpec(t))
	f.deaf.Store(true)
	m.Kill()
	<-m.Done()
	if err := m.Err(); !errors.Is(err, vm.ErrEnded) || !strings.Contains(err.Error(), "does not stop it") {
		t.Errorf("Err is %v", err)
	}
	made := f.made[0]
	for _, file := range []*os.File{made.c.console.in, made.c.console.out} {
		if _, err := file.Stat(); err != nil {
			t.Errorf("while it runs: %v", err)
		}
	}
	made.end()
	<-m.(*machine).free
}

// snapshot makes the files of one.
func snapshot(t *testing.T) vm.Snapshot {
	t.Helper()
	dir := t.TempDir()
	var s vm.Snapshot
	for name, to := range map[string]**os.File{"memory": &s.Memory, "state": &s.State} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		*to = file
	}
	return s
}

// All streams of a guest go over one connection of the framework's, whose descriptor is
// closed twice when it ends.
func TestOneConnection(t *testing.T) {
	d, f := faulty(t)
	m := begun(t, d, memorySpec(t))
	for range 20 {
		conn, err := m.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	made := f.made[0]
	made.mu.Lock()
	defer made.mu.Unlock()
	if len(made.there) != 1 {
		t.Errorf("%d connections", len(made.there))
	}
}

// A restored guest that does not answer is given up after seconds, and so is one that the
// framework never connects to.
func TestRestoredGuestThatDoesNotAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it waits for a deadline, 5 s")
	}
	t.Parallel()
	d, f := faulty(t)
	spec, s := memorySpec(t), snapshot(t)
	if err := d.Save(t.Context(), spec, s, func(context.Context, vm.Machine) error { return nil }); err != nil {
		t.Fatal(err)
	}
	f.unreachable = true
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if m, err := d.Restore(ctx, spec, s); err == nil || !strings.Contains(err.Error(), "did not answer within 5s") {
		if err == nil {
			m.Kill()
		}
		t.Errorf("%v", err)
	}
	select {
	case <-f.made[len(f.made)-1].stopped:
	default:
		t.Error("the machine has not been stopped")
	}
}

// An identifier is as long as it says, and not empty.
func TestIdentifier(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		ok   bool
	}{
		"one":            {"\x00\x00\x00\x02id", true},
		"one of nothing": {"\x00\x00\x00\x00id", false},
		"a long one":     {"\x00\x01\x00\x01" + strings.Repeat("x", 70000), false},
		"cut off":        {"\x00\x00\x00\x03id", false},
		"no length":      {"\x00", false},
	} {
		f := snapshot(t).Memory
		if _, err := f.WriteString(tt.file); err != nil {
			t.Fatal(err)
		}
		if id, err := readIdentifier(f); (err == nil) != tt.ok || tt.ok && string(id) != "id" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}

// What the framework says nothing clear of is told in a line, before it is asked or
// after.
func TestClearRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*inMemory, *vm.Spec)
	}{
		{"more CPUs than the Mac gives", "at most 8", func(_ *inMemory, s *vm.Spec) { s.CPUs = 9 }},
		{"more memory than the Mac gives", "at most 16384", func(_ *inMemory, s *vm.Spec) { s.Memory = 17 << 30 }},
		{"another architecture", "does not emulate", func(_ *inMemory, s *vm.Spec) { s.Arch = "arm64" }},
		{"an unsigned program", "not signed with the entitlement " + entitlement, func(f *inMemory, _ *vm.Spec) { f.unsigned = true }},
	} {
		d, f := faulty(t)
		spec := memorySpec(t)
		tt.change(f, &spec)
		if m, err := d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			if err == nil {
				m.Kill()
			}
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// macOS is told that a machine runs until it has ended, however it did, and nothing of one
// that never started.
func TestActivity(t *testing.T) {
	d, f := faulty(t)
	spec := memorySpec(t)
	spec.Memory++
	if _, err := d.Start(t.Context(), spec); err == nil {
		t.Error("a machine of half a mebibyte has started")
	}
	first, second := begun(t, d, memorySpec(t)), begun(t, d, memorySpec(t))
	if n := f.activities.Load(); n != 2 {
		t.Errorf("%d activities of two machines", n)
	}
	first.Kill()
	<-first.Done()
	if n := f.activities.Load(); n != 1 {
		t.Errorf("%d activities after the end of one", n)
	}
	second.(*machine).vm.(*inMemoryMachine).end() // it powers off
	<-second.Done()
	d.framework.(*inMemory).lateLock = true
	spec = memorySpec(t)
	held, err := os.Open(spec.Disks[len(spec.Disks)-1].File.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lockPause)
	defer cancel()
	if _, err := d.Start(ctx, spec); err == nil {
		t.Error("a machine with a locked disk has started")
	}
	// A start that was not waited for is ended behind its caller.
	polltest.True(t, "without a machine no activity is left", func() bool { return f.activities.Load() == 0 })
}

// A directory that is reached by a link, as /tmp and /var are on a Mac, is shared as what
// it is.
func TestShareThroughLink(t *testing.T) {
	d, f := faulty(t)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "private", "tmp"), filepath.Join(dir, "tmp")
	if err := errors.Join(os.MkdirAll(filepath.Join(real, "shared"), 0o700), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	spec := memorySpec(t)
	spec.Shares = []vm.Share{{Dir: filepath.Join(link, "shared"), Tag: "share0"}}
	begun(t, d, spec)
	if got := f.made[0].c.shares[0].dir; got != filepath.Join(real, "shared") {
		t.Errorf("it shares %q", got)
	}
	spec = memorySpec(t)
	spec.Shares = []vm.Share{{Dir: filepath.Join(link, "gone"), Tag: "share0"}}
	if m, err := d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "gone") {
		if err == nil {
			m.Kill()
		}
		t.Errorf("a directory that is gone: %v", err)
	}
}

// A second greeting is that of a guest that has reset, though nothing was heard of the end
// of the first conversation.
func TestSecondGreeting(t *testing.T) {
	d, f := faulty(t)
	m := begun(t, d, memorySpec(t))
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f.made[0].accepts <- f.made[0].guest()
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatal("the machine goes on")
	}
	if err := m.Err(); err == vm.ErrEnded || !strings.Contains(err.Error(), "the guest reset") {
		t.Errorf("Err is %v", err)
	}
}
