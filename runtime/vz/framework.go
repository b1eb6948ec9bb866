package vz

import (
	"errors"
	"net"
	"os"
)

// framework is what the driver calls of Virtualization.framework, in plain types:
// framework_darwin.go translates it to vz, the tests simulate it.
type framework interface {
	// release is that of macOS, such as "14.2.1"; build names it exactly, with
	// the model of this Mac.
	release() (string, error)
	build() (string, error)
	arch() string // of this Mac, in Go's name
	newIdentifier() ([]byte, error)
	newMacIdentifier() ([]byte, error) // of a machine that runs macOS
	// limits are those of one machine on this host.
	limits() (cpus int, memory int64)
	// signature is what codesign(1) says of this program, its entitlements among it.
	signature() (string, error)
	// quarantine is what macOS wrote to this program's file when it was downloaded; ""
	// for nothing.
	quarantine() (string, error)
	// activity tells macOS that this process works for its user until end is called.
	activity() (end func())
	// rosetta says why guests cannot use Rosetta, if so.
	rosetta() error
	// path is the name of an open file: the framework opens its files by name.
	path(f *os.File) (string, error)
	// newMachine makes a machine, stopped. It wraps errLocked while a disk of c
	// is another machine's.
	newMachine(c *configuration) (virtualMachine, error)
	// newDesktop makes a machine with a screen, as newMachine does.
	newDesktop(c *desktopConfiguration) (desktopMachine, error)
	// newVariables makes a store for EFI's variables, in a file that is not there.
	newVariables(path string) error
}

// errLocked is wrapped when a disk image is locked. A machine's disks stay locked
// for a second or so after it has stopped.
var errLocked = errors.New("a disk image is locked by another VM")

// virtualMachine is one machine of the framework. A call of it may take as long
// as it likes, and connect need not return at all once the machine has stopped.
type virtualMachine interface {
	start() error
	stop() error // at once, whatever the guest does
	pause() error
	resume() error
	// supportsSave says whether such a machine can be saved at all.
	supportsSave() error
	save(path string) error    // of a paused machine, to a file that is not there
	restore(path string) error // of a stopped machine, which is paused then
	// states tells the changes of state, from now on; the framework need not tell
	// a guest's reset.
	states() <-chan state
	// listen accepts the guest's connections to a vsock port of the host's.
	listen(port uint32) (listener, error)
	// connect connects to a vsock port of the guest's.
	connect(port uint32) (net.Conn, error)
}

// desktopMachine is one with a screen, a keyboard, a pointer and no vsock.
type desktopMachine interface {
	virtualMachine
	// requestStop asks the guest to power off; asked is false when that cannot be.
	requestStop() (asked bool, err error)
	// window shows the screen until the machine ends or somebody closes it, on the
	// process's first thread.
	window(title string, width, height int) error
}

// listener gives the guest's connections. accept need not return after close.
type listener interface {
	accept() (net.Conn, error)
	close()
}

// state is a machine's, as far as the driver cares.
type state int

const (
	stateOther state = iota // running, or on the way from one state to another
	stateStopped
	stateFailed
)

// configuration is a machine with an agent, for the framework.
type configuration struct {
	kernel, initramfs string // paths
	commandLine       string
	cpus              int
	memory            int64 // bytes, whole mebibytes
	identifier        []byte
	disks             []disk
	shares            []share
	nic               *nic // nil for none
	console           *console
	entropy           bool
	// rosetta adds a virtiofs device, with the tag rosettaTag, that has the host's
	// Rosetta for Linux.
	rosetta bool
}

// desktopConfiguration is a machine with a screen, for the framework.
type desktopConfiguration struct {
	cpus       int
	memory     int64  // bytes, whole mebibytes
	identifier []byte // nil for a new one
	// variables is the path of EFI's, or of a Mac's auxiliary storage.
	variables string
	// direct is booted in the place of EFI; nil for EFI or a Mac.
	direct *direct
	// hardwareModel is that of a Mac; nil for EFI.
	hardwareModel []byte
	disks         []desktopDisk
	nic           *nic // nil for none
	console       *console
}

// direct is a Linux that is booted without a loader.
type direct struct{ kernel, initramfs, commandLine string }

// desktopDisk is a disk or an ISO.
type desktopDisk struct {
	disk
	bus bus
}

// bus is how a guest sees a disk.
type bus int

const (
	busVirtio bus = iota
	busNVMe       // for guests without drivers for virtio
	busUSB        // one that can be booted from, in the place of a CD-ROM
)

// rosettaTag is that of the share with Rosetta, which the guest's init knows by its
// kernel's command line.
const rosettaTag = "rosetta"

// disk is a virtio block device. Its host cache is always on: with the mode that
// the framework chooses by itself, guests' file systems broke
// (lima-vm/lima#1957, utmapp/UTM#4840).
type disk struct {
	path     string
	serial   string
	readOnly bool
	// sync: what the guest flushes is on the host's disk.
	sync bool
}

// share is a virtiofs device.
type share struct {
	tag, dir string
	readOnly bool
}

// nic is a virtio network device on a datagram socket. The framework does not
// duplicate the socket: it stays open as long as the machine.
type nic struct {
	socket *os.File
	mac    net.HardwareAddr
	mtu    int
}

// console is a virtio console: the guest reads from in and writes to out. Both
// stay open as long as the machine.
type console struct{ in, out *os.File }
