//go:build darwin && cgo

package vz

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"unsafe"

	apple "github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// New makes a driver. It remembers what it finds out about the host in the user's
// cache directory.
func New() (vm.Driver, error) {
	return &Driver{framework: appleFramework{}, cacheDir: vm.CacheDir()}, nil
}

// appleFramework is Virtualization.framework itself. Each method is a translation
// to vz; what it means is said by [framework].
type appleFramework struct{}

var _ framework = appleFramework{}

func (appleFramework) release() (string, error) { return unix.Sysctl("kern.osproductversion") }

func (appleFramework) build() (string, error) {
	var values []string
	for _, name := range []string{"kern.osversion", "hw.model"} {
		value, err := unix.Sysctl(name)
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
		values = append(values, value)
	}
	return strings.Join(values, " "), nil
}

func (appleFramework) arch() string { return runtime.GOARCH }

func (appleFramework) newIdentifier() ([]byte, error) {
	identifier, err := apple.NewGenericMachineIdentifier()
	if err != nil {
		return nil, err
	}
	// Its bytes are the framework's, and go with the identifier.
	return append([]byte(nil), identifier.DataRepresentation()...), nil
}

func (appleFramework) limits() (cpus int, memory int64) {
	return int(apple.VirtualMachineConfigurationMaximumAllowedCPUCount()), int64(apple.VirtualMachineConfigurationMaximumAllowedMemorySize())
}

func (appleFramework) signature() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("/usr/bin/codesign", "-d", "-v", "--entitlements", "-", "--xml", program).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("codesign: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func (appleFramework) quarantine() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	mark := make([]byte, 1024)
	n, err := unix.Getxattr(program, "com.apple.quarantine", mark)
	if errors.Is(err, unix.ENOATTR) || errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	return string(mark[:max(n, 0)]), err
}

// path is the name of an open file, as fcntl(2) F_GETPATH gives it.
func (appleFramework) path(f *os.File) (string, error) {
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

func (appleFramework) newMachine(c *configuration) (virtualMachine, error) {
	loader, err := apple.NewLinuxBootLoader(c.kernel, apple.WithCommandLine(c.commandLine), apple.WithInitrd(c.initramfs))
	if err != nil {
		return nil, fmt.Errorf("the boot loader: %w", err)
	}
	config, err := apple.NewVirtualMachineConfiguration(loader, uint(c.cpus), uint64(c.memory))
	if err != nil {
		return nil, fmt.Errorf("the machine's configuration: %w", err)
	}
	steps := []error{setPlatform(config, c.identifier), addConsole(config, c.console), addDisks(config, c.disks),
		addShares(config, c.shares, c.rosetta), addNIC(config, c.nic), addVsock(config)}
	if c.entropy {
		steps = append(steps, addEntropy(config))
	}
	for _, err := range steps {
		if err != nil {
			return nil, err
		}
	}
	return validated(config, written(c.disks))
}

// written are the paths of the disks that a guest writes to.
func written(disks []disk) (paths []string) {
	for _, d := range disks {
		if !d.readOnly {
			paths = append(paths, d.path)
		}
	}
	return paths
}

// validated makes a machine of a configuration, stopped. paths are those of the files
// that it writes to.
func validated(config *apple.VirtualMachineConfiguration, paths []string) (*appleMachine, error) {
	if ok, err := config.Validate(); !ok || err != nil {
		return nil, asLocked(fmt.Errorf("the framework refuses the machine: %w", errors.Join(err, vm.ErrUnsupported)), paths)
	}
	machine, err := apple.NewVirtualMachine(config)
	if err != nil {
		return nil, fmt.Errorf("making the machine: %w", err)
	}
	return &appleMachine{config, machine, paths}, nil
}

// asLocked has errLocked in an error that says that one of the paths is locked.
func asLocked(err error, paths []string) error {
	var e *apple.NSError
	if errors.As(err, &e) && (refusal{e.Domain, e.Code, e.LocalizedDescription, e.UserInfo}).locked(paths) {
		return fmt.Errorf("%w: %w", errLocked, err)
	}
	return err
}

func setPlatform(config *apple.VirtualMachineConfiguration, identifier []byte) error {
	id, err := apple.NewGenericMachineIdentifierWithData(identifier)
	if err != nil {
		return fmt.Errorf("the machine's identifier: %w", err)
	}
	platform, err := apple.NewGenericPlatformConfiguration(apple.WithGenericMachineIdentifier(id))
	if err != nil {
		return fmt.Errorf("the platform: %w", err)
	}
	config.SetPlatformVirtualMachineConfiguration(platform)
	return nil
}

func addConsole(config *apple.VirtualMachineConfiguration, c *console) error {
	attachment, err := apple.NewFileHandleSerialPortAttachment(c.in, c.out)
	if err != nil {
		return fmt.Errorf("the console: %w", err)
	}
	port, err := apple.NewVirtioConsoleDeviceSerialPortConfiguration(attachment)
	if err != nil {
		return fmt.Errorf("the console: %w", err)
	}
	config.SetSerialPortsVirtualMachineConfiguration([]*apple.VirtioConsoleDeviceSerialPortConfiguration{port})
	return nil
}

func addDisks(config *apple.VirtualMachineConfiguration, disks []disk) error {
	var devices []apple.StorageDeviceConfiguration
	for _, d := range disks {
		attachment, err := attach(d)
		if err != nil {
			return fmt.Errorf("disk %q: %w", d.serial, err)
		}
		device, err := apple.NewVirtioBlockDeviceConfiguration(attachment)
		if err != nil {
			return fmt.Errorf("disk %q: %w", d.serial, err)
		}
		if err := device.SetBlockDeviceIdentifier(d.serial); err != nil {
			return fmt.Errorf("disk %q: %w", d.serial, err)
		}
		devices = append(devices, device)
	}
	config.SetStorageDevicesVirtualMachineConfiguration(devices)
	return nil
}

// attach opens a disk for the framework.
func attach(d disk) (*apple.DiskImageStorageDeviceAttachment, error) {
	mode := apple.DiskImageSynchronizationModeNone
	if d.sync {
		mode = apple.DiskImageSynchronizationModeFsync
	}
	attachment, err := apple.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(d.path, d.readOnly, apple.DiskImageCachingModeCached, mode)
	return attachment, asLocked(err, written([]disk{d}))
}

func addShares(config *apple.VirtualMachineConfiguration, shares []share, rosetta bool) error {
	var devices []apple.DirectorySharingDeviceConfiguration
	for _, s := range shares {
		directory, err := apple.NewSharedDirectory(s.dir, s.readOnly)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.dir, err)
		}
		share, err := apple.NewSingleDirectoryShare(directory)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.dir, err)
		}
		device, err := apple.NewVirtioFileSystemDeviceConfiguration(s.tag)
		if err != nil {
			return fmt.Errorf("sharing %s: %w", s.dir, err)
		}
		device.SetDirectoryShare(share)
		devices = append(devices, device)
	}
	if rosetta {
		device, err := rosettaDevice()
		if err != nil {
			return fmt.Errorf("sharing Rosetta: %w", err)
		}
		devices = append(devices, device)
	}
	config.SetDirectorySharingDevicesVirtualMachineConfiguration(devices)
	return nil
}

func addNIC(config *apple.VirtualMachineConfiguration, n *nic) error {
	if n == nil {
		return nil
	}
	attachment, err := apple.NewFileHandleNetworkDeviceAttachment(n.socket)
	if err != nil {
		return fmt.Errorf("the NIC: %w", err)
	}
	if err := attachment.SetMaximumTransmissionUnit(n.mtu); err != nil {
		return fmt.Errorf("the NIC: %w", err)
	}
	device, err := apple.NewVirtioNetworkDeviceConfiguration(attachment)
	if err != nil {
		return fmt.Errorf("the NIC: %w", err)
	}
	mac, err := apple.NewMACAddress(n.mac)
	if err != nil {
		return fmt.Errorf("the NIC: %w", err)
	}
	device.SetMACAddress(mac)
	config.SetNetworkDevicesVirtualMachineConfiguration([]*apple.VirtioNetworkDeviceConfiguration{device})
	return nil
}

func addVsock(config *apple.VirtualMachineConfiguration) error {
	socket, err := apple.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	config.SetSocketDevicesVirtualMachineConfiguration([]apple.SocketDeviceConfiguration{socket})
	return nil
}

func addEntropy(config *apple.VirtualMachineConfiguration) error {
	entropy, err := apple.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	config.SetEntropyDevicesVirtualMachineConfiguration([]*apple.VirtioEntropyDeviceConfiguration{entropy})
	return nil
}

// appleMachine is a machine of the framework itself.
type appleMachine struct {
	config *apple.VirtualMachineConfiguration
	vm     *apple.VirtualMachine
	paths  []string
}

var _ virtualMachine = (*appleMachine)(nil)

func (m *appleMachine) start() error  { return asLocked(m.vm.Start(), m.paths) }
func (m *appleMachine) stop() error   { return m.vm.Stop() }
func (m *appleMachine) pause() error  { return m.vm.Pause() }
func (m *appleMachine) resume() error { return m.vm.Resume() }

func (m *appleMachine) states() <-chan state {
	states := make(chan state, 8) // a machine that is given up is not listened to
	go func() {
		defer close(states)
		for s := range m.vm.StateChangedNotify() {
			switch s {
			case apple.VirtualMachineStateStopped:
				states <- stateStopped
				return
			case apple.VirtualMachineStateError:
				states <- stateFailed
				return
			default:
				states <- stateOther
			}
		}
	}()
	return states
}

func (m *appleMachine) listen(port uint32) (listener, error) {
	devices := m.vm.SocketDevices()
	if len(devices) == 0 {
		return nil, errors.New("the machine has no vsock device")
	}
	l, err := devices[0].Listen(port)
	if err != nil {
		return nil, err
	}
	return appleListener{l}, nil
}

func (m *appleMachine) connect(port uint32) (net.Conn, error) {
	devices := m.vm.SocketDevices()
	if len(devices) == 0 {
		return nil, errors.New("the machine has no vsock device")
	}
	return devices[0].Connect(port)
}

type appleListener struct{ l *apple.VirtioSocketListener }

func (l appleListener) accept() (net.Conn, error) { return l.l.Accept() }

// close does nothing: the framework may never answer the removal of a listener
// whose machine has stopped, and Accept does not return in either case
// (Code-Hex/vz#213). The listener goes with its machine.
func (appleListener) close() {}
