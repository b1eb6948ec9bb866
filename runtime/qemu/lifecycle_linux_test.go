package qemu

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

func TestFakeMachine(t *testing.T) {
	m := fakeStart(t, "good")
	fakeConfigure(t, m)
	if out, err := vmtest.Shell(t.Context(), m, "echo $((6 * 7))"); out != "42\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if m.Err() != nil {
		t.Errorf("a machine that runs: %v", m.Err())
	}
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Shutdown(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if m.Err() != vm.ErrEnded || m.(vm.Reporter).Report() != "its guest powered off" {
		t.Errorf("it ended with %v, %q", m.Err(), m.(vm.Reporter).Report())
	}
	if m.Console() != "hello from the console\n" {
		t.Errorf("console: %q", m.Console())
	}
	if conn, err := m.Dial(t.Context()); !errors.Is(err, vm.ErrEnded) {
		t.Errorf("Dial after the end: %v, %v", conn, err)
	}
}

// However QEMU ends a machine that nobody wished to end, it is told.
func TestFakeMachineEnds(t *testing.T) {
	for behaviour, says := range map[string]string{
		"exits":  "QEMU ended: exit status 3\nqemu: no such luck",
		"stops":  "QEMU stopped the machine: KVM internal error. Suberror: 1",
		"panics": "the guest's kernel panicked",
		"halts":  "the guest's kernel has halted (reboot: System halted)",
	} {
		t.Run(behaviour, func(t *testing.T) {
			m := fakeStart(t, behaviour)
			<-m.Done()
			if err := m.Err(); !errors.Is(err, vm.ErrEnded) || err == vm.ErrEnded || !strings.HasPrefix(err.Error(), says) {
				t.Errorf("Err is %q, want %q", err, says)
			}
		})
	}
	t.Run("resets", func(t *testing.T) {
		m := fakeStart(t, "resets")
		<-m.Done()
		if !errors.Is(m.Err(), vm.ErrEnded) || !errors.Is(m.Err(), vm.ErrEarlyReset) || m.(vm.Reporter).Report() != "" {
			t.Errorf("%v, %q", m.Err(), m.(vm.Reporter).Report())
		}
	})
	t.Run("resets with a word", func(t *testing.T) {
		m := fakeStart(t, "resets-loudly")
		<-m.Done()
		if m.Err() != vm.ErrEnded || m.(vm.Reporter).Report() != "its guest restarted the machine" {
			t.Errorf("%v, %q", m.Err(), m.(vm.Reporter).Report())
		}
	})
	t.Run("resets once its agent has greeted", func(t *testing.T) {
		m := fakeStart(t, "resets-later")
		fakeConfigure(t, m)
		conn, err := m.Dial(t.Context())
		if err == nil {
			err = client.Shutdown(t.Context(), conn)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-m.Done()
		if m.Err() != vm.ErrEnded || m.(vm.Reporter).Report() != "its guest restarted the machine" {
			t.Errorf("%v, %q", m.Err(), m.(vm.Reporter).Report())
		}
	})
	t.Run("a disk fails", func(t *testing.T) {
		m := fakeStart(t, "full")
		<-m.Done()
		if got, want := m.(vm.Reporter).Report(), "the host's disk is full: writing to the VM's own disk failed, and the guest got the error (the first of 2 errors)"; got != want {
			t.Errorf("Report() = %q, want %q", got, want)
		}
	})
	t.Run("is killed", func(t *testing.T) {
		m := fakeStart(t, "silent")
		m.Kill()
		<-m.Done()
		if m.Err() != vm.ErrEnded {
			t.Errorf("%v", m.Err())
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, err := fakeTree(t).Start(ctx, fakeSpec(t, "silent"))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-m.Done()
		if m.Err() != vm.ErrEnded {
			t.Errorf("%v", m.Err())
		}
	})
}

// A machine is saved and goes on, and whatever QEMU refuses is told.
func TestFakeSnapshots(t *testing.T) {
	d := fakeTree(t)
	dir := t.TempDir()
	open := func(t *testing.T, name string, size int64) *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil && size > 0 {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	save := func(t *testing.T, behaviour, state string) error {
		spec := fakeSpec(t, behaviour)
		return d.Save(t.Context(), spec, vm.Snapshot{Memory: open(t, "memory", spec.Memory), State: open(t, state, 0)}, func(_ context.Context, m vm.Machine) error {
			fakeConfigure(t, m)
			return nil
		})
	}
	if id, err := d.Fingerprint(t.Context(), fakeSpec(t, "good")); err != nil || !strings.Contains(id, "tcg") {
		t.Errorf("Fingerprint() = %q, %v", id, err)
	}
	if err := save(t, "good", "state"); err != nil {
		t.Fatal(err)
	}
	for behaviour, says := range map[string]string{
		"refuses-getfd": "telling QEMU to getfd: no such descriptor",
		"fails-to-save": "QEMU could not save the machine",
		"dies-saving":   "QEMU ended while it saved the machine",
		"mute":          "QEMU ended: exit status 3\nqemu: no such luck",
	} {
		if err := save(t, behaviour, behaviour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("saving, %s: %v, want %q", behaviour, err, says)
		}
	}
	if err := d.Save(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "none", 0)}, func(context.Context, vm.Machine) error {
		return io.ErrUnexpectedEOF
	}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("saving what could not be prepared: %v", err)
	}
	m, err := d.Restore(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "state", 0)})
	if err != nil {
		t.Fatal(err)
	}
	fakeConfigure(t, m)
	if out, err := vmtest.Shell(t.Context(), m, "echo restored"); out != "restored\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	m.Kill()
	<-m.Done()
	for cpus, says := range map[string]string{
		"3": "telling QEMU to getfd: no such descriptor",
		"4": "QEMU ended: exit status 3\nqemu: no such luck",
	} {
		spec := fakeSpec(t, "good")
		spec.CPUs, err = strconv.Atoi(cpus)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Restore(t.Context(), spec, vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "state", 0)}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("restoring, %s: %v, want %q", restored[cpus], err, says)
		}
	}
	bad, err := d.Restore(t.Context(), fakeSpec(t, "good"), vm.Snapshot{Memory: open(t, "memory", 0), State: open(t, "empty", 0)})
	if err == nil {
		<-bad.Done()
		err = bad.Err()
	}
	if err == vm.ErrEnded || !strings.Contains(err.Error(), "not a state") {
		t.Errorf("restoring an empty state: %v", err)
	}
}

// doctor's look at QEMU and its accelerator.
func TestFakeCheck(t *testing.T) {
	d := fakeTree(t)
	check := func(spec vm.Spec, name string) vm.Check {
		t.Helper()
		all := d.Check(t.Context(), spec)
		i := slices.IndexFunc(all, func(c vm.Check) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("no check %q in %+v", name, all)
		}
		return all[i]
	}
	if c := check(vm.Spec{Arch: "amd64"}, "qemu"); c.Status != vm.CheckOK || !strings.Contains(c.Detail, "8.2.0") {
		t.Errorf("%+v", c)
	}
	if c := check(fakeSpec(t, "good"), "accelerator"); c.Status != vm.CheckWarn || !strings.Contains(c.Detail, "it was asked for") {
		t.Errorf("an accelerator that was asked for: %+v", c)
	}
	if c := check(vm.Spec{Arch: "arm64"}, "qemu"); c.Status != vm.CheckFail || !strings.Contains(c.Detail, "qemu-system-arm") {
		t.Errorf("another architecture's: %+v", c)
	}
	for version, old := range map[string]bool{
		"QEMU emulator version 7.1.0": true, "QEMU emulator version 7.2.9 (Debian)": false, "QEMU emulator version 10.0.0": false, "something else": false,
	} {
		if older(version) != old {
			t.Errorf("older(%q) = %t", version, !old)
		}
	}
	reads, writes := d.Installation()
	if !slices.ContainsFunc(reads, func(s string) bool { return strings.HasSuffix(s, "/"+machines["amd64"].binary) }) {
		t.Errorf("Installation() = %v, %v", reads, writes)
	}
	d.options.ControlGroup = "/sys/fs/cgroup/mine"
	if _, writes = d.Installation(); !slices.Equal(writes, []string{"/sys/fs/cgroup/mine"}) {
		t.Errorf("with a control group: %v", writes)
	}
	for name, want := range map[string]bool{"": true, "kvm": true, "hvf": true, "tcg": true, "KVM": false, "tcg,thread=multi": false} {
		if a, err := ParseAccelerator(name); (err == nil) != want || want && string(a) != name {
			t.Errorf("ParseAccelerator(%q) = %q, %v", name, a, err)
		}
	}
}
