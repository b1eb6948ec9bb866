//go:build darwin && cgo

package vz

import (
	"fmt"

	apple "github.com/Code-Hex/vz/v3"
)

func (appleFramework) newVariables(path string) error {
	_, err := apple.NewEFIVariableStore(path, apple.WithCreatingEFIVariableStore())
	return err
}

func (appleFramework) newDesktop(c *desktopConfiguration) (desktopMachine, error) {
	loader, err := desktopLoader(c)
	if err != nil {
		return nil, fmt.Errorf("the boot loader: %w", err)
	}
	config, err := apple.NewVirtualMachineConfiguration(loader, uint(c.cpus), uint64(c.memory))
	if err != nil {
		return nil, fmt.Errorf("the machine's configuration: %w", err)
	}
	steps := []error{addConsole(config, c.console), addStorage(config, c.disks), addNIC(config, c.nic), addEntropy(config), addSound(config)}
	if c.hardwareModel != nil {
		steps = append(steps, addMac(config, c))
	} else {
		steps = append(steps, addGeneric(config, c), addClipboard(config))
	}
	for _, err := range steps {
		if err != nil {
			return nil, err
		}
	}
	paths := []string{c.variables}
	for _, d := range c.disks {
		paths = append(paths, written([]disk{d.disk})...)
	}
	return validated(config, paths)
}

var _ desktopMachine = (*appleMachine)(nil)

func (m *appleMachine) requestStop() (bool, error) { return m.vm.RequestStop() }

func (m *appleMachine) window(title string, width, height int) error {
	return m.vm.StartGraphicApplication(float64(width), float64(height), apple.WithWindowTitle(title))
}

func desktopLoader(c *desktopConfiguration) (apple.BootLoader, error) {
	switch {
	case c.hardwareModel != nil:
		return macLoader()
	case c.direct != nil:
		return apple.NewLinuxBootLoader(c.direct.kernel, apple.WithCommandLine(c.direct.commandLine), apple.WithInitrd(c.direct.initramfs))
	}
	variables, err := apple.NewEFIVariableStore(c.variables)
	if err != nil {
		return nil, fmt.Errorf("the firmware's variables: %w", err)
	}
	return apple.NewEFIBootLoader(apple.WithEFIVariableStore(variables))
}

// addGeneric adds what a guest of EFI's has and a Mac has otherwise: platform,
// screen, keyboard, pointer.
func addGeneric(config *apple.VirtualMachineConfiguration, c *desktopConfiguration) error {
	var options []apple.GenericPlatformConfigurationOption
	if c.identifier != nil {
		identifier, err := apple.NewGenericMachineIdentifierWithData(c.identifier)
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

func addStorage(config *apple.VirtualMachineConfiguration, disks []desktopDisk) error {
	var devices []apple.StorageDeviceConfiguration
	for _, d := range disks {
		attachment, err := attach(d.disk)
		if err != nil {
			return fmt.Errorf("the %s: %w", d.serial, err)
		}
		var device apple.StorageDeviceConfiguration
		switch d.bus {
		case busVirtio:
			device, err = apple.NewVirtioBlockDeviceConfiguration(attachment)
		case busNVMe:
			device, err = apple.NewNVMExpressControllerDeviceConfiguration(attachment)
		case busUSB:
			device, err = apple.NewUSBMassStorageDeviceConfiguration(attachment)
		}
		if err != nil {
			return fmt.Errorf("the %s: %w", d.serial, err)
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
