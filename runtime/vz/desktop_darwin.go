//go:build darwin && cgo

package vz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	apple "github.com/Code-Hex/vz/v3"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

var (
	_ vm.DesktopDriver = (*Driver)(nil)
	_ vm.Identifies    = (*Driver)(nil)
	_ vm.Desktop       = (*desktop)(nil)
	_ vm.Windowed      = (*desktop)(nil)
)

// The screen, in pixels. A Linux guest changes it with its window.
const (
	screenWidth  = 1280
	screenHeight = 800
)

// WriteVariables is part of [vm.DesktopDriver].
func (d *Driver) WriteVariables(arch string, secureBoot bool, to *os.File) error {
	if err := errors.Join(d.checkHost(), checkArch(arch)); err != nil {
		return err
	}
	if secureBoot {
		return errNoSecurity
	}
	err := d.byName(to, func(name string) error {
		_, err := apple.NewEFIVariableStore(name, apple.WithCreatingEFIVariableStore())
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the firmware's variables: %w", err)
	}
	return nil
}

// NewIdentifier is part of [vm.Identifies].
func (d *Driver) NewIdentifier(f vm.Firmware) ([]byte, error) {
	if err := d.checkHost(); err != nil {
		return nil, err
	}
	if f == vm.FirmwareMac {
		return d.newMacIdentifier()
	}
	identifier, err := d.framework.newIdentifier()
	if err != nil {
		return nil, fmt.Errorf("making the machine's identifier: %w", err)
	}
	return identifier, nil
}

// StartDesktop is part of [vm.DesktopDriver].
func (d *Driver) StartDesktop(ctx context.Context, spec vm.DesktopSpec) (vm.Desktop, error) {
	m, err := d.defineDesktop(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := m.run(ctx, func() error { return whileLocked(ctx, m.vm.start) }); err != nil {
		return nil, fmt.Errorf("starting the machine: %w", err)
	}
	return m, nil
}

// defineDesktop lays out a machine and makes it, stopped.
func (d *Driver) defineDesktop(ctx context.Context, spec vm.DesktopSpec) (*desktop, error) {
	if err := d.checkHost(); err != nil {
		return nil, err
	}
	if err := checkDesktop(spec); err != nil {
		return nil, err
	}
	m := &desktop{machine: newMachine(0)}
	err := whileLocked(ctx, func() error {
		config, err := m.configure(spec)
		if err != nil {
			return err
		}
		made, err := validated(config)
		if err != nil {
			return err
		}
		m.vm, m.apple = made, made.vm
		return nil
	})
	if err != nil {
		m.closeFiles()
		return nil, err
	}
	return m, nil
}

// desktop is one running machine with a screen.
type desktop struct {
	*machine
	apple *apple.VirtualMachine
	port  *console
	nic   *nic // nil for none
}

func (m *desktop) configure(spec vm.DesktopSpec) (*apple.VirtualMachineConfiguration, error) {
	loader, err := desktopLoader(spec)
	if err != nil {
		return nil, fmt.Errorf("the boot loader: %w", err)
	}
	config, err := apple.NewVirtualMachineConfiguration(loader, uint(spec.CPUs), uint64(spec.Memory))
	if err != nil {
		return nil, fmt.Errorf("the machine's configuration: %w", err)
	}
	port, err := m.serialPort(spec)
	if err != nil {
		return nil, fmt.Errorf("the console: %w", err)
	}
	network, err := m.network(spec)
	if err != nil {
		return nil, fmt.Errorf("the NIC: %w", err)
	}
	steps := []error{addConsole(config, port), addStorage(config, spec), addNIC(config, network), addEntropy(config), addSound(config)}
	if spec.HardwareModel != nil {
		steps = append(steps, addMac(config, spec))
	} else {
		steps = append(steps, addGeneric(config, spec), addClipboard(config))
	}
	for _, err := range steps {
		if err != nil {
			return nil, err
		}
	}
	return config, nil
}

// serialPort and network are made once, though a locked disk may need several
// configurations.
func (m *desktop) serialPort(spec vm.DesktopSpec) (*console, error) {
	if m.port == nil {
		serial := io.Writer(m.console)
		if spec.Serial != nil {
			serial = spec.Serial
		}
		var err error
		if m.port, err = m.addConsole(serial, nil); err != nil {
			return nil, err
		}
	}
	return m.port, nil
}

func (m *desktop) network(spec vm.DesktopSpec) (*nic, error) {
	if m.nic == nil && spec.Network != nil {
		var err error
		if m.nic, err = m.addNIC(spec.Network); err != nil {
			return nil, err
		}
	}
	return m.nic, nil
}

func desktopLoader(spec vm.DesktopSpec) (apple.BootLoader, error) {
	switch {
	case spec.HardwareModel != nil:
		return macLoader()
	case spec.Direct != nil:
		kernel, err := appleFramework{}.path(spec.Direct.Kernel)
		if err != nil {
			return nil, err
		}
		initrd, err := appleFramework{}.path(spec.Direct.Initrd)
		if err != nil {
			return nil, err
		}
		return apple.NewLinuxBootLoader(kernel, apple.WithCommandLine(spec.Direct.CommandLine+" console=hvc0"), apple.WithInitrd(initrd))
	}
	name, err := appleFramework{}.path(spec.Variables)
	if err != nil {
		return nil, err
	}
	variables, err := apple.NewEFIVariableStore(name)
	if err != nil {
		return nil, fmt.Errorf("the firmware's variables: %w", err)
	}
	return apple.NewEFIBootLoader(apple.WithEFIVariableStore(variables))
}

// addGeneric adds what a guest of EFI's has and a Mac has otherwise: platform,
// screen, keyboard, pointer.
func addGeneric(config *apple.VirtualMachineConfiguration, spec vm.DesktopSpec) error {
	var options []apple.GenericPlatformConfigurationOption
	if spec.Identifier != nil {
		identifier, err := apple.NewGenericMachineIdentifierWithData(spec.Identifier)
		if err != nil {
			return fmt.Errorf("the machine's identifier: %w", err)
		}
		options = append(options, apple.WithGenericMachineIdentifier(identifier))
	}
	platform, err := apple.NewGenericPlatformConfiguration(options...)
	if err != nil {
		return fmt.Errorf("the platform: %w", err)
	}
	config.SetPlatformVirtualMachineConfiguration(platform)
	screen, err := apple.NewVirtioGraphicsDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	scanout, err := apple.NewVirtioGraphicsScanoutConfiguration(screenWidth, screenHeight)
	if err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	screen.SetScanouts(scanout)
	config.SetGraphicsDevicesVirtualMachineConfiguration([]apple.GraphicsDeviceConfiguration{screen})
	return addInput(config)
}

// addInput adds a keyboard, and a pointer beside others that the guest may prefer.
func addInput(config *apple.VirtualMachineConfiguration, pointers ...apple.PointingDeviceConfiguration) error {
	keyboard, err := apple.NewUSBKeyboardConfiguration()
	if err != nil {
		return fmt.Errorf("the keyboard: %w", err)
	}
	config.SetKeyboardsVirtualMachineConfiguration([]apple.KeyboardConfiguration{keyboard})
	pointer, err := apple.NewUSBScreenCoordinatePointingDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("the pointer: %w", err)
	}
	config.SetPointingDevicesVirtualMachineConfiguration(append(pointers, pointer))
	return nil
}

func attachFile(f *os.File, readOnly bool) (*apple.DiskImageStorageDeviceAttachment, error) {
	path, err := appleFramework{}.path(f)
	if err != nil {
		return nil, err
	}
	return attach(disk{path: path, readOnly: readOnly, sync: !readOnly})
}

// addStorage adds disk and ISO. An empty disk does not boot, and the firmware
// goes on to the ISO.
func addStorage(config *apple.VirtualMachineConfiguration, spec vm.DesktopSpec) error {
	var devices []apple.StorageDeviceConfiguration
	if spec.Disk != nil {
		attachment, err := attachFile(spec.Disk, false)
		if err != nil {
			return fmt.Errorf("the disk: %w", err)
		}
		var device apple.StorageDeviceConfiguration
		if spec.Common {
			device, err = apple.NewNVMExpressControllerDeviceConfiguration(attachment)
		} else {
			device, err = apple.NewVirtioBlockDeviceConfiguration(attachment)
		}
		if err != nil {
			return fmt.Errorf("the disk: %w", err)
		}
		devices = append(devices, device)
	}
	for _, iso := range []*os.File{spec.ISO, spec.Drivers} {
		if iso == nil {
			continue
		}
		attachment, err := attachFile(iso, true)
		if err != nil {
			return fmt.Errorf("the ISO: %w", err)
		}
		device, err := apple.NewUSBMassStorageDeviceConfiguration(attachment)
		if err != nil {
			return fmt.Errorf("the ISO: %w", err)
		}
		devices = append(devices, device)
	}
	config.SetStorageDevicesVirtualMachineConfiguration(devices)
	return nil
}

// addSound adds what plays on this host. What records would ask its user.
func addSound(config *apple.VirtualMachineConfiguration) error {
	device, err := apple.NewVirtioSoundDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("the sound: %w", err)
	}
	output, err := apple.NewVirtioSoundDeviceHostOutputStreamConfiguration()
	if err != nil {
		return fmt.Errorf("the sound: %w", err)
	}
	device.SetStreams(output)
	config.SetAudioDevicesVirtualMachineConfiguration([]apple.AudioDeviceConfiguration{device})
	return nil
}

// addClipboard shares this host's clipboard with guests that run spice-vdagent.
func addClipboard(config *apple.VirtualMachineConfiguration) error {
	attachment, err := apple.NewSpiceAgentPortAttachment()
	if err != nil {
		return fmt.Errorf("the clipboard: %w", err)
	}
	name, err := apple.SpiceAgentPortAttachmentName()
	if err != nil {
		return fmt.Errorf("the clipboard: %w", err)
	}
	port, err := apple.NewVirtioConsolePortConfiguration(
		apple.WithVirtioConsolePortConfigurationName(name), apple.WithVirtioConsolePortConfigurationAttachment(attachment))
	if err != nil {
		return fmt.Errorf("the clipboard: %w", err)
	}
	device, err := apple.NewVirtioConsoleDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("the clipboard: %w", err)
	}
	device.SetVirtioConsolePortConfiguration(0, port)
	config.SetConsoleDevicesVirtualMachineConfiguration([]apple.ConsoleDeviceConfiguration{device})
	return nil
}

// RunWindow is part of [vm.Windowed].
func (m *desktop) RunWindow(title string) error {
	return m.apple.StartGraphicApplication(screenWidth, screenHeight, apple.WithWindowTitle(title))
}

// PowerButton is part of [vm.Desktop].
func (m *desktop) PowerButton() error {
	asked, err := m.apple.RequestStop()
	if err == nil && !asked {
		err = errors.New("the framework did not")
	}
	if err != nil {
		return fmt.Errorf("pressing the power button: %w", err)
	}
	return nil
}
