//go:build darwin && cgo

package vz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"unsafe"

	apple "github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

func init() { vm.Register(Name, func() (vm.Driver, error) { return &Driver{}, nil }) }

// Driver starts machines.
type Driver struct{}

var (
	_ vm.Driver     = (*Driver)(nil)
	_ vm.NamedDisks = (*Driver)(nil)
)

// NamesDisks is part of [vm.NamedDisks]: the framework opens disks by name.
func (*Driver) NamesDisks() bool { return true }

// Start is part of [vm.Driver].
func (*Driver) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	identifier, err := apple.NewGenericMachineIdentifier()
	if err != nil {
		return nil, fmt.Errorf("making the machine's identifier: %w", err)
	}
	m, err := define(spec, identifier)
	if err != nil {
		return nil, err
	}
	return m, m.boot(ctx)
}

// define lays out a machine and makes it, stopped.
func define(spec vm.Spec, identifier *apple.GenericMachineIdentifier) (*machine, error) {
	if err := checkHost(); err != nil {
		return nil, err
	}
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	m := newMachine(spec.ConsoleTail)
	return m, m.define(func() (*apple.VirtualMachineConfiguration, error) { return m.configure(spec, identifier) })
}

// checkHost looks whether this macOS is new enough.
func checkHost() error {
	release, err := unix.Sysctl("kern.osproductversion")
	if err != nil {
		return fmt.Errorf("reading the release of macOS: %w", err)
	}
	return checkMacOS(release)
}

func newMachine(consoleTail int) *machine {
	return &machine{done: make(chan struct{}), ready: make(chan struct{}), console: vm.NewTail(cmp.Or(consoleTail, 16<<10))}
}

// define makes the machine, stopped.
func (m *machine) define(configure func() (*apple.VirtualMachineConfiguration, error)) (err error) {
	defer func() {
		if err != nil {
			m.closeConsole()
		}
	}()
	if m.config, err = configure(); err != nil {
		return err
	}
	if ok, err := m.config.Validate(); !ok || err != nil {
		return fmt.Errorf("the framework refuses the machine: %w", errors.Join(err, vm.ErrUnsupported))
	}
	if m.vm, err = apple.NewVirtualMachine(m.config); err != nil {
		return fmt.Errorf("making the machine: %w", err)
	}
	return nil
}

// start starts a machine.
func (m *machine) start(ctx context.Context) error {
	// Before the start: a crash in its first moments is seen, too.
	states := m.vm.StateChangedNotify()
	if err := m.vm.Start(); err != nil {
		m.closeConsole()
		return fmt.Errorf("starting the machine: %w", err)
	}
	go m.watch(ctx, states)
	return nil
}

// boot starts a machine that has an agent.
func (m *machine) boot(ctx context.Context) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := m.awaitAgent(); err != nil {
		m.Kill()
		<-m.done
		return err
	}
	return nil
}

// machine is one running virtual machine.
type machine struct {
	config   *apple.VirtualMachineConfiguration
	vm       *apple.VirtualMachine
	console  *vm.Tail
	hostEnds []*os.File // of the console's pipes
	killed   atomic.Bool
	ready    chan struct{} // closed when the agent listens
	done     chan struct{}
	err      error // set before done is closed
}

var _ vm.Machine = (*machine)(nil)

func (m *machine) configure(spec vm.Spec, identifier *apple.GenericMachineIdentifier) (*apple.VirtualMachineConfiguration, error) {
	kernel, err := filePath(spec.Kernel)
	if err != nil {
		return nil, err
	}
	initramfs, err := filePath(spec.Initramfs)
	if err != nil {
		return nil, err
	}
	loader, err := apple.NewLinuxBootLoader(kernel, apple.WithCommandLine(commandLine(spec)), apple.WithInitrd(initramfs))
	if err != nil {
		return nil, fmt.Errorf("the boot loader: %w", err)
	}
	config, err := apple.NewVirtualMachineConfiguration(loader, uint(spec.CPUs), uint64(spec.Memory))
	if err != nil {
		return nil, fmt.Errorf("the machine's configuration: %w", err)
	}
	platform, err := apple.NewGenericPlatformConfiguration(apple.WithGenericMachineIdentifier(identifier))
	if err != nil {
		return nil, fmt.Errorf("the platform: %w", err)
	}
	config.SetPlatformVirtualMachineConfiguration(platform)
	for _, err := range []error{
		m.addConsole(config, m.console), addDisks(config, spec.Disks), addShares(config, spec.Shares), addNetwork(config, spec.Network),
		addSocket(config), addRest(config),
	} {
		if err != nil {
			return nil, err
		}
	}
	return config, nil
}

// addConsole adds a serial port; what the guest writes to it goes to to.
func (m *machine) addConsole(config *apple.VirtualMachineConfiguration, to io.Writer) error {
	in, toGuest, err := os.Pipe()
	if err != nil {
		return err
	}
	fromGuest, out, err := os.Pipe()
	if err != nil {
		return err
	}
	m.hostEnds = []*os.File{toGuest, fromGuest, in, out}
	attachment, err := apple.NewFileHandleSerialPortAttachment(in, out)
	if err != nil {
		return fmt.Errorf("the console: %w", err)
	}
	port, err := apple.NewVirtioConsoleDeviceSerialPortConfiguration(attachment)
	if err != nil {
		return fmt.Errorf("the console: %w", err)
	}
	config.SetSerialPortsVirtualMachineConfiguration([]*apple.VirtioConsoleDeviceSerialPortConfiguration{port})
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := fromGuest.Read(b)
			if _, failed := to.Write(b[:n]); failed != nil {
				to = io.Discard // the guest goes on
			}
			if err != nil {
				return
			}
		}
	}()
	return nil
}

func (m *machine) closeConsole() {
	for _, f := range m.hostEnds {
		f.Close()
	}
}

func addDisks(config *apple.VirtualMachineConfiguration, disks []vm.Disk) error {
	var devices []apple.StorageDeviceConfiguration
	for _, d := range disks {
		attachment, err := attach(d)
		if err != nil {
			return fmt.Errorf("disk %q: %w", d.Serial, err)
		}
		device, err := apple.NewVirtioBlockDeviceConfiguration(attachment)
		if err != nil {
			return fmt.Errorf("disk %q: %w", d.Serial, err)
		}
		if err := device.SetBlockDeviceIdentifier(d.Serial); err != nil {
			return fmt.Errorf("disk %q: %w", d.Serial, err)
		}
		devices = append(devices, device)
	}
	config.SetStorageDevicesVirtualMachineConfiguration(devices)
	return nil
}

// attach opens a disk for the framework.
func attach(d vm.Disk) (*apple.DiskImageStorageDeviceAttachment, error) {
	name, err := filePath(d.File)
	if err != nil {
		return nil, err
	}
	sync := apple.DiskImageSynchronizationModeFsync
	if d.Ephemeral {
		sync = apple.DiskImageSynchronizationModeNone
	}
	return apple.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(name, d.ReadOnly, apple.DiskImageCachingModeAutomatic, sync)
}

func addShares(config *apple.VirtualMachineConfiguration, shares []vm.Share) error {
	var devices []apple.DirectorySharingDeviceConfiguration
	for _, s := range shares {
		directory, err := apple.NewSharedDirectory(s.Dir, s.ReadOnly)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.Dir, err)
		}
		share, err := apple.NewSingleDirectoryShare(directory)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.Dir, err)
		}
		device, err := apple.NewVirtioFileSystemDeviceConfiguration(s.Tag)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.Dir, err)
		}
		device.SetDirectoryShare(share)
		devices = append(devices, device)
	}
	config.SetDirectorySharingDevicesVirtualMachineConfiguration(devices)
	return nil
}

func addNetwork(config *apple.VirtualMachineConfiguration, n *vm.Network) error {
	if n == nil {
		return nil
	}
	attachment, err := apple.NewFileHandleNetworkDeviceAttachment(n.Wire)
	if err != nil {
		return fmt.Errorf("the network: %w", err)
	}
	if err := attachment.SetMaximumTransmissionUnit(n.MTU); err != nil {
		return fmt.Errorf("the network: %w", err)
	}
	device, err := apple.NewVirtioNetworkDeviceConfiguration(attachment)
	if err != nil {
		return fmt.Errorf("the network: %w", err)
	}
	mac, err := apple.NewMACAddress(n.MAC)
	if err != nil {
		return fmt.Errorf("the network: %w", err)
	}
	device.SetMACAddress(mac)
	config.SetNetworkDevicesVirtualMachineConfiguration([]*apple.VirtioNetworkDeviceConfiguration{device})
	return nil
}

func addSocket(config *apple.VirtualMachineConfiguration) error {
	socket, err := apple.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	config.SetSocketDevicesVirtualMachineConfiguration([]apple.SocketDeviceConfiguration{socket})
	return nil
}

// addRest adds what every machine has: entropy, balloon.
func addRest(config *apple.VirtualMachineConfiguration) error {
	entropy, err := apple.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	config.SetEntropyDevicesVirtualMachineConfiguration([]*apple.VirtioEntropyDeviceConfiguration{entropy})
	balloon, err := apple.NewVirtioTraditionalMemoryBalloonDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	config.SetMemoryBalloonDevicesVirtualMachineConfiguration([]apple.MemoryBalloonDeviceConfiguration{balloon})
	return nil
}

// watch waits for the machine's end, and ends it with ctx.
func (m *machine) watch(ctx context.Context, states <-chan apple.VirtualMachineState) {
	defer close(m.done)
	defer m.closeConsole()
	m.err = vm.ErrEnded
	defer context.AfterFunc(ctx, m.Kill)()
	for state := range states {
		switch state {
		case apple.VirtualMachineStateStopped:
			return
		case apple.VirtualMachineStateError:
			if !m.killed.Load() && ctx.Err() == nil {
				m.err = fmt.Errorf("%w with an error of the framework", vm.ErrEnded)
			}
			return
		}
	}
}

// awaitAgent hears the agent, which connects once when it listens.
func (m *machine) awaitAgent() error {
	devices := m.vm.SocketDevices()
	if len(devices) == 0 {
		return errors.New("the machine has no vsock device")
	}
	l, err := devices[0].Listen(protocol.VsockReadyPort)
	if err != nil {
		return fmt.Errorf("listening for the guest's agent: %w", err)
	}
	go func() {
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
		close(m.ready)
	}()
	go func() {
		<-m.done
		l.Close()
	}()
	return nil
}

// Dial is part of [vm.Machine]. It waits for the agent.
func (m *machine) Dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-m.ready:
	case <-m.done:
		return nil, vm.ErrEnded
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	conn, err := m.vm.SocketDevices()[0].Connect(protocol.VsockPort)
	if err != nil {
		return nil, fmt.Errorf("connecting to the guest's agent: %w", err)
	}
	return conn, nil
}

// Kill is part of [vm.Machine].
func (m *machine) Kill() {
	m.killed.Store(true)
	go func() { _ = m.vm.Stop() }() // it waits; the states tell the end
}

// Done is part of [vm.Machine].
func (m *machine) Done() <-chan struct{} { return m.done }

// Err is part of [vm.Machine].
func (m *machine) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Console is part of [vm.Machine].
func (m *machine) Console() string {
	return strings.ToValidUTF8(strings.ReplaceAll(m.console.String(), "\r", ""), "\uFFFD")
}

// commandLine is the kernel's: the console is a virtio one, the agent is reached
// by vsock.
func commandLine(spec vm.Spec) string {
	return spec.CommandLine + " console=hvc0 lumina.transport=vsock"
}

// filePath is the name of an open file, as fcntl(2) F_GETPATH gives it.
func filePath(f *os.File) (string, error) {
	var buf [1024]byte // MAXPATHLEN
	raw, err := f.SyscallConn()
	if err != nil {
		return "", err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_FCNTL, fd, unix.F_GETPATH, uintptr(unsafe.Pointer(&buf[0])))
	}); err != nil {
		return "", err
	}
	if errno != 0 {
		return "", os.NewSyscallError("fcntl", errno)
	}
	name, _, _ := strings.Cut(string(buf[:]), "\x00")
	return name, nil
}
