package vz

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// newDesktop is a machine without an agent, whose guest ends when it is asked to, or
// does not.
func (f *inMemory) newDesktop(c *desktopConfiguration) (desktopMachine, error) {
	if err := f.validate(c.cpus, c.memory); err != nil {
		return nil, err
	}
	as := &configuration{console: c.console, nic: c.nic}
	for _, d := range c.disks {
		as.disks = append(as.disks, d.disk)
	}
	m := &inMemoryMachine{simulated: newSimulated(f.simulation, as), silent: true, slow: f.slow}
	f.made, f.desktops = append(f.made, m), append(f.desktops, c)
	if err := m.lockDisks(); err != nil && !f.lateLock {
		return nil, err
	}
	return &inMemoryDesktop{m}, nil
}

type inMemoryDesktop struct{ *inMemoryMachine }

func (m *inMemoryDesktop) requestStop() (bool, error) {
	if m.s.deaf.Load() {
		return false, nil
	}
	m.end()
	return true, nil
}

func (m *inMemoryDesktop) window(title string, width, height int) error {
	m.print(fmt.Sprintf("%s %dx%d\n", title, width, height))
	<-m.stopped
	return nil
}

// desktopSpec lays out a desktop with every kind of disk.
func desktopSpec(t *testing.T) vm.DesktopSpec {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	return vm.DesktopSpec{Arch: "amd64", CPUs: 2, Memory: 1 << 30, Variables: file("variables"), Disk: file("disk"), ISO: file("iso"), Drivers: file("drivers")}
}

// What the driver asks of the framework for disks: what a guest flushes is on the host's
// disk where the disk outlives the machine, and nothing waits for the host's otherwise.
func TestSynchronization(t *testing.T) {
	d, f := faulty(t)
	dir := t.TempDir()
	spec := memorySpec(t)
	spec.Disks = nil
	want := map[string]string{
		"root":    "read-only",
		"scratch": "none",
		"volume0": "fsync",
	}
	for _, disk := range []vm.Disk{
		{Serial: "root", ReadOnly: true}, {Serial: protocol.DiskScratch, Ephemeral: true}, {Serial: protocol.DiskVolume + "0"},
	} {
		var err error
		if disk.File, err = os.Create(filepath.Join(dir, disk.Serial)); err != nil {
			t.Fatal(err)
		}
		defer disk.File.Close()
		spec.Disks = append(spec.Disks, disk)
	}
	begun(t, d, spec)
	mode := func(d disk) string {
		switch {
		case d.readOnly && !d.sync:
			return "read-only"
		case d.sync && !d.readOnly:
			return "fsync"
		case !d.sync:
			return "none"
		}
		return "one that is read-only and synchronized"
	}
	for _, disk := range f.made[0].c.disks {
		if got := mode(disk); got != want[disk.serial] {
			t.Errorf("disk %q: %s, want %s", disk.serial, got, want[disk.serial])
		}
	}
	for _, common := range []bool{false, true} {
		s := desktopSpec(t)
		s.Common = common
		m, err := d.StartDesktop(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		m.Kill()
		<-m.Done()
		hardDisk := busVirtio
		if common {
			hardDisk = busNVMe
		}
		got := f.desktops[len(f.desktops)-1].disks
		for i, want := range []desktopDisk{
			{disk{path: s.Disk.Name(), serial: "disk", sync: true}, hardDisk},
			{disk{path: s.ISO.Name(), serial: "ISO", readOnly: true}, busUSB},
			{disk{path: s.Drivers.Name(), serial: "ISO", readOnly: true}, busUSB},
		} {
			if i >= len(got) || got[i] != want {
				t.Errorf("disk %d of a desktop: %+v, want %+v", i, got, want)
			}
		}
	}
}

// A desktop starts when its disk is free, shows its window, and ends as its guest likes.
func TestDesktop(t *testing.T) {
	for _, late := range []bool{false, true} {
		d, f := faulty(t)
		f.lateLock = late
		spec := desktopSpec(t)
		var serial bytes.Buffer
		spec.Serial = &serial
		held, err := os.Open(spec.Disk.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*lockPause, func() { held.Close() })
		m, err := d.StartDesktop(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		f.deaf.Store(true)
		if err := m.PowerButton(); err == nil {
			t.Error("a button that does nothing was pressed")
		}
		f.deaf.Store(false)
		shown := make(chan error, 1)
		go func() { shown <- m.(vm.Windowed).RunWindow("title") }()
		select {
		case <-m.Done():
			t.Errorf("it has ended: %v", m.Err())
		case <-time.After(2 * lockPause):
		}
		if err := m.PowerButton(); err != nil {
			t.Error(err)
		}
		<-m.Done()
		if err := errors.Join(<-shown, m.Err()); !errors.Is(err, vm.ErrEnded) || m.Err() != vm.ErrEnded {
			t.Errorf("it ended with %v", err)
		}
		if got := serial.String(); got != "title 1280x800\n" {
			t.Errorf("the serial port's log: %q", got)
		}
		if len(f.made) < 2 {
			t.Error("the disk was not locked")
		}
	}
}

// What a desktop keeps beside its disk.
func TestVariables(t *testing.T) {
	d, _ := faulty(t)
	dir := t.TempDir()
	stale := filepath.Join(dir, "variables.vz") // of a process that was killed
	if err := errors.Join(os.MkdirAll(stale, 0o700), os.WriteFile(filepath.Join(stale, "file"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "variables"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.WriteVariables("amd64", false, f); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.Name()); string(b) != "variables" {
		t.Errorf("%q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.vz*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := d.WriteVariables("amd64", true, f); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("Secure Boot: %v", err)
	}
	if id, err := d.NewIdentifier(vm.FirmwareEFI); err != nil || len(id) == 0 {
		t.Errorf("an identifier: %v, %v", id, err)
	}
	if _, err := d.NewIdentifier(vm.FirmwareMac); !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(err.Error(), "Apple silicon") {
		t.Errorf("a Mac's: %v", err)
	}
}
