package vm

import (
	"context"
	"io"
	"net"
	"os"
	"time"
)

// DesktopDriver is a [Driver] that also runs whole systems: machines with EFI
// firmware, a screen, a keyboard and a pointer, and no agent.
type DesktopDriver interface {
	// WriteVariables writes a store for the firmware's variables: an empty one or,
	// for Secure Boot, one that has the keys of what may boot. It wraps
	// [ErrUnsupported] where there can be none of the kind.
	WriteVariables(arch string, secureBoot bool, to *os.File) error
	// StartDesktop starts a machine. It ends when ctx does. The files of spec
	// may be closed once StartDesktop has returned.
	StartDesktop(ctx context.Context, spec DesktopSpec) (Desktop, error)
}

// Identifies is a [DesktopDriver] whose machines have identifiers that only it
// makes, and that stay with them.
type Identifies interface {
	NewIdentifier(f Firmware) ([]byte, error)
}

// MacDriver is a [DesktopDriver] that runs macOS, too.
type MacDriver interface {
	DesktopDriver
	Identifies
	// LatestMacOS is the URL of the newest restore image that this host can run.
	LatestMacOS() (string, error)
	// ReadMacOS says what a restore image (IPSW) needs.
	ReadMacOS(image string) (*MacOS, error)
	// WriteAuxiliary writes an empty auxiliary storage, a Mac's counterpart of the
	// firmware's variables, for a model of hardware.
	WriteAuxiliary(hardwareModel []byte, to *os.File) error
	// InstallMacOS installs macOS in the place of starting spec's machine. progress
	// is called with the part that is done, from 0 to 1.
	InstallMacOS(ctx context.Context, spec DesktopSpec, image string, progress func(float64)) error
}

// MacOS is what a restore image says of itself.
type MacOS struct {
	Version       string // such as "15.1 (24B83)"
	HardwareModel []byte // the best one that both it and this host have
	CPUs          int    // at least
	Memory        int64  // at least, bytes
}

// TPMDriver is a [DesktopDriver] whose machines can have a TPM 2.0.
type TPMDriver interface {
	// CheckTPM says why a machine of an architecture cannot have one here, if so.
	CheckTPM(arch string) error
}

// Firmware is what starts a desktop's system.
type Firmware int

// The firmwares.
const (
	FirmwareEFI Firmware = iota
	FirmwareMac
)

// DesktopSpec is a desktop before it is started. Unlike that of a [Spec], its
// guest may restart its machine.
type DesktopSpec struct {
	ID     string // a UUID, which the guest sees
	Name   string // for people
	Arch   string // in Go's name
	CPUs   int
	Memory int64 // bytes
	// Identifier is what [Identifies] made; nil where the driver is none.
	Identifier []byte
	// Variables is the firmware's, see WriteVariables; for a Mac, its auxiliary
	// storage, see [MacDriver].
	Variables *os.File
	// HardwareModel is that of a Mac, see [MacDriver]; nil for a machine with EFI.
	HardwareModel []byte
	Disk          *os.File // booted from, once there is something on it
	ISO           *os.File // a read-only CD-ROM; nil for none
	Drivers       *os.File // another one, which is not booted; nil for none
	// SecureBoot: Variables are for it, and the firmware starts only what they allow.
	SecureBoot bool
	// TPM keeps the state of a TPM 2.0, which an empty file is at first; nil for a
	// machine without one. It needs a [TPMDriver].
	TPM *os.File
	// Common: the guest has no drivers for virtio, as Windows.
	Common  bool
	Network *NIC // nil for none
	// Direct is booted in the place of what disk and ISO have; nil for none.
	Direct *DirectBoot
	Serial io.Writer // gets what the guest writes to its serial port; may be nil
	Window bool      // shows the screen in a window of the host's
}

// DirectBoot is a Linux that is booted without a loader, once: the machine ends
// when it restarts. Its console is the serial port.
type DirectBoot struct {
	Kernel, Initrd *os.File // read from their start
	CommandLine    string
}

// Desktop is a started desktop.
type Desktop interface {
	// Kill ends the machine at once. It does not wait; see Done.
	Kill()
	// Done is closed when the machine has ended and its resources are free.
	Done() <-chan struct{}
	// Err says how it ended, once Done is closed, as that of [Machine] does.
	Err() error
	// PowerButton presses it. What the guest does about it is its own affair.
	PowerButton() error
}

// Screen is a [Desktop] whose screen a program can read.
type Screen interface {
	// Screenshot returns the screen as a PNG.
	Screenshot() ([]byte, error)
}

// Input is a [Desktop] whose keyboard and pointer a program can use.
type Input interface {
	// Key presses or releases a key.
	Key(k Key, down bool) error
	// Point moves the pointer to a pixel of the screen, and presses or releases
	// its left, middle or right button.
	Point(x, y int, button Button, down bool) error
}

// SerialInput is a [Desktop] whose serial port takes input.
type SerialInput interface {
	// WriteSerial writes to the guest's serial port. It fails when the guest does not
	// take it in some seconds.
	WriteSerial(p []byte) error
}

// Viewer is a [Desktop] that a VNC client can show and use.
type Viewer interface {
	// Viewer opens a stream of the RFB protocol (RFC 6143), which needs no
	// password.
	Viewer() (net.Conn, error)
}

// Resetter is a [Desktop] with a reset button.
type Resetter interface {
	// Reset restarts the machine at once, whatever its guest is doing.
	Reset() error
}

// Dialer is a [Desktop] whose guest's agent can be reached, when it has one.
type Dialer interface {
	// Dial opens a stream to the agent. It waits for one that is not up yet until
	// ctx ends.
	Dial(ctx context.Context) (net.Conn, error)
}

// Meter is a [Desktop] that knows what it takes of the host.
type Meter interface {
	Usage() (Usage, error)
}

// Usage is what a machine takes of the host.
type Usage struct {
	CPU    time.Duration // that its processes have had since they started
	Memory int64         // bytes that it has of the host's memory now
}

// Windowed is a [Desktop] whose window is of this process, not of the hypervisor's.
type Windowed interface {
	// RunWindow shows the screen until the machine ends or somebody closes the
	// window. It takes the goroutine that is locked to the process's first thread:
	// main's, when an init function has called [runtime.LockOSThread].
	RunWindow(title string) error
}

// Key is a key of a keyboard, by what is printed on a US one in lower
// case ("a", "7", "-"), or its name ("enter", "f1", "shift").
type Key string

// Button is a button of a pointer.
type Button string

// The buttons.
const (
	ButtonLeft   Button = "left"
	ButtonMiddle Button = "middle"
	ButtonRight  Button = "right"
)
