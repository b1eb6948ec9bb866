package vz

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// The lock of a volume is not that of its disk, which the framework takes.
func TestVolumeIsLockedBesideItsDisk(t *testing.T) {
	d, _ := faulty(t)
	volumes := volume.NewStore(t.TempDir())
	if err := volumes.Create("data", 64<<20); err != nil {
		t.Fatal(err)
	}
	disk, err := volumes.Open("data")
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	spec := memorySpec(t)
	spec.Disks = append(spec.Disks, vm.Disk{File: disk.File, Lock: disk.Lock, Serial: protocol.DiskVolume + "0"})
	begun(t, d, spec)
}

// nicSockets makes the two ends of a NIC.
func nicSockets(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// The framework's end of the NIC has room, and stays open when the spec's is closed.
func TestNIC(t *testing.T) {
	d, f := faulty(t)
	spec := memorySpec(t)
	ours, theirs := nicSockets(t)
	spec.Network = &vm.NIC{MAC: vm.NewMAC(), Socket: theirs, MTU: 1500}
	begun(t, d, spec)
	theirs.Close()
	socket := f.made[0].c.nic.socket
	if _, err := socket.Write([]byte("frame")); err != nil {
		t.Fatal(err)
	}
	for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
		usual, err := unix.GetsockoptInt(int(ours.Fd()), unix.SOL_SOCKET, option)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unix.GetsockoptInt(int(socket.Fd()), unix.SOL_SOCKET, option); err != nil || got <= usual {
			t.Errorf("option %d: room for %d bytes, %v; others have %d", option, got, err, usual)
		}
	}
}

// A guest is restored with the NIC that it was saved with, whatever address it gets.
func TestSavedMAC(t *testing.T) {
	d, f := faulty(t)
	spec, s := memorySpec(t), snapshot(t)
	_, theirs := nicSockets(t)
	spec.Network = &vm.NIC{MAC: vm.NewMAC(), Socket: theirs, MTU: 1500}
	if err := d.Save(t.Context(), spec, s, func(context.Context, vm.Machine) error { return nil }); err != nil {
		t.Fatal(err)
	}
	_, theirs = nicSockets(t)
	spec.Network = &vm.NIC{MAC: vm.NewMAC(), Socket: theirs, MTU: 1500}
	m, err := d.Restore(t.Context(), spec, s)
	if err != nil {
		t.Fatal(err)
	}
	m.Kill()
	<-m.Done()
	for _, made := range f.made {
		if got := made.c.nic.mac; got.String() != net.HardwareAddr(savedMAC).String() {
			t.Errorf("a machine has the address %v", got)
		}
	}
}

// A host that does not restore what it saved has no templates, and finds that out once.
func TestHostsThatDoNotRestore(t *testing.T) {
	d, f := faulty(t)
	f.noRestore = true
	spec, s := memorySpec(t), snapshot(t)
	if _, err := d.Fingerprint(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(t.Context(), spec, s, func(context.Context, vm.Machine) error { return nil }); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("Save: %v, want ErrUnsupported", err)
	}
	if _, err := d.Fingerprint(t.Context(), spec); !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(err.Error(), "restores no machines") {
		t.Errorf("Fingerprint after that: %v, want ErrUnsupported and why", err)
	}
}

// slowWriter takes its time: a machine that ended at once would not wait for it.
type slowWriter struct{ strings.Builder }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(50 * time.Millisecond)
	return w.Builder.Write(p)
}

// What a guest prints last is read before its machine has ended.
func TestConsoleIsDrained(t *testing.T) {
	m := newMachine(0)
	var to slowWriter
	c, err := m.addConsole(&to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.out.WriteString("the last word\n"); err != nil {
		t.Fatal(err)
	}
	m.closeFiles()
	select {
	case <-m.drained:
	default:
		t.Fatal("the console is still being read")
	}
	if got := to.String(); got != "the last word\n" {
		t.Errorf("the console ends with %q", got)
	}
}

// A guest is told that it has a share with the host's translator, where there is one.
func TestRosettaIsShared(t *testing.T) {
	d, f := faulty(t)
	f.translator = t.TempDir()
	spec := memorySpec(t)
	begun(t, d, spec)
	spec.Rosetta = true
	spec.Disks = nil
	begun(t, d, spec)
	for i, made := range f.made {
		told := strings.Contains(made.c.commandLine, protocol.ParamRosetta.Is(rosettaTag))
		if want := i == 1; made.c.rosetta != want || told != want {
			t.Errorf("machine %d: a share: %v, told: %v, want %v", i, made.c.rosetta, told, want)
		}
	}
}
