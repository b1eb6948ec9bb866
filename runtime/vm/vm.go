// Package vm is the contract between the runtime and what runs virtual
// machines on a host. Its types are plain data and build on every system;
// only drivers know a hypervisor.
//
// A machine has three phases: [Driver.Start] returns it running, it answers
// until it ends, and [Machine.Done] is closed when it has ended. A machine
// that has ended is not started again.
package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
)

// Spec is a virtual machine before it is started.
type Spec struct {
	// Arch is the guest's architecture, in Go's name.
	Arch string
	// Kernel and Initramfs are booted directly. The driver reads them from
	// their start, wherever their offset is.
	Kernel, Initramfs *os.File
	// CommandLine is the kernel's; the driver adds what its machine needs.
	CommandLine string
	CPUs        int
	Memory      int64 // bytes
	Disks       []Disk
	Shares      []Share // where the driver is a [Sharer]
	// Network is the guest's network device; nil for none.
	Network *NIC
	// Nested: the guest can run virtual machines itself.
	Nested bool
	// Rosetta: the guest, an arm64 one, runs amd64 programs by the translator of a
	// Mac's host.
	Rosetta bool
	// ConsoleTail is how many bytes of the console's end are kept for
	// [Machine.Console]; 0 for the driver's default.
	ConsoleTail int
}

// Disk is a raw block device.
type Disk struct {
	// File is read and written in place. On Linux it may be unlinked.
	File     *os.File
	Serial   string // the guest tells its disks apart by it; at most 20 bytes
	ReadOnly bool
	// Ephemeral: the disk ends with the VM, so that flushes may be ignored.
	Ephemeral bool
	// Lock, unless nil, is a locked file that says that the disk is in use: the
	// driver keeps it open as long as the machine has the disk.
	Lock *os.File
}

// Share is a directory of the host that the guest can mount.
type Share struct {
	Dir      string
	Tag      string // the guest tells its shares apart by it
	ReadOnly bool
}

// NIC is an Ethernet device.
type NIC struct {
	MAC net.HardwareAddr
	// Socket is a datagram socket that carries one Ethernet frame a datagram.
	Socket *os.File
	MTU    int // bytes
}

// NewMAC makes a random, locally administered, unicast address.
func NewMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails, see crypto/rand
	mac[0] = mac[0]&^1 | 2
	return mac
}

// Driver runs virtual machines with one hypervisor.
type Driver interface {
	// Start starts a machine. The machine ends when ctx does. The files of
	// spec may be closed once Start has returned.
	Start(ctx context.Context, spec Spec) (Machine, error)
}

// NamedDisks is a [Driver] whose hypervisor opens disks by name: they keep theirs
// until Start has returned.
type NamedDisks interface {
	NamesDisks() bool
}

// LateReader is a [Driver] whose machines read the file of a disk when their guest
// does: they see what is written to it after Start has returned.
type LateReader interface {
	ReadsLate()
}

// Sharer is a [Driver] that has devices for [Spec.Shares]. With others, directories are
// served by the process that owns the VM, see package share.
type Sharer interface {
	SharesDirectories()
}

// Snapshotter is a [Driver] that can save a machine once and restore it many times.
type Snapshotter interface {
	// Fingerprint names everything of driver and host that a snapshot of
	// spec depends on. It wraps ErrUnsupported where there can be none.
	Fingerprint(ctx context.Context, spec Spec) (string, error)
	// Save boots spec's machine, has prepare make its guest ready for the
	// snapshot, and writes it to the snapshot's files; that of the memory has
	// the memory's size. prepare leaves no stream open, and has the guest's
	// word that it has read everything. The machine ends.
	Save(ctx context.Context, spec Spec, s Snapshot, prepare func(context.Context, Machine) error) error
	// Restore starts a machine that goes on where Save ended. spec is that of
	// Save with other files of the same content. The snapshot is not changed.
	// Of one that is damaged there is an error, or a machine that ends by itself.
	Restore(ctx context.Context, spec Spec, s Snapshot) (Machine, error)
}

// Snapshot is what is kept of a machine. Each Save and each Restore has files
// that were opened for it: State is written and read on from its offset.
type Snapshot struct {
	Memory *os.File
	State  *os.File // of everything but the memory
}

// Checker is a [Driver] that can tell whether its host is fit for it.
type Checker interface {
	// Check looks at the host. spec has a kernel and an initramfs to try an
	// accelerator with, or none.
	Check(ctx context.Context, spec Spec) []Check
}

// Check is something that was looked at.
type Check struct {
	Name   string      `json:"name"`
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail"`
	Remedy string      `json:"remedy,omitempty"`
}

// CheckStatus is how good what was found is.
type CheckStatus string

// The statuses.
const (
	CheckOK   CheckStatus = "ok"
	CheckWarn CheckStatus = "warning" // it works, worse than it could
	CheckFail CheckStatus = "failure" // VMs do not run
)

// Installed is a driver that runs a program of this host's.
type Installed interface {
	Driver
	// Installation lists the files and directories that the program is made of, and
	// those that starting it writes to, for the code that confines the driver's process.
	Installation() (reads, writes []string)
}

// Cleaner is a [Driver] that keeps something on this host for each machine.
type Cleaner interface {
	// Clean removes what is left of machines of processes that were killed.
	Clean()
}

// Machine is a started virtual machine.
type Machine interface {
	// Dial opens a stream to the guest's agent. Before the agent is up, it
	// waits for it, or what is written to the stream does. It fails with
	// ctx's cause when ctx ends first, and with an error that wraps [ErrEnded]
	// when the machine has ended.
	Dial(ctx context.Context) (net.Conn, error)
	// Kill ends the machine at once. It does not wait; see Done. It may be
	// called again, and after the end.
	Kill()
	// Done is closed when the machine has ended and its resources are free.
	Done() <-chan struct{}
	// Err is nil while the machine runs. Then it is [ErrEnded] when the guest
	// powered off or reset, Kill was called, or the context of the start ended,
	// and another error, which wraps ErrEnded and says why, when the machine
	// ended by itself.
	Err() error
	// Console returns the end of what the guest's kernel and init printed.
	Console() string
}

// Reporter is a [Machine] or a [Desktop] whose driver notices what its guest does
// not tell.
type Reporter interface {
	// Report says it in one line: that a disk of the host's failed and, once the
	// machine has ended by itself, how; "" when there is nothing to say.
	Report() string
}

var (
	// ErrUnsupported is wrapped when a driver cannot do what a spec asks for.
	ErrUnsupported = errors.New("not supported by this driver")
	// ErrEnded is what is left of a machine that has ended, see [Machine].
	ErrEnded = errors.New("the VM has ended")
	// ErrEarlyReset is wrapped when a machine was reset before its guest's agent
	// answered, and its console has nothing on it: no kernel and no init that fails is
	// silent, so that it is rather the host's fault.
	ErrEarlyReset = errors.New("the machine was reset before its agent answered, and its console does not say why")
)
