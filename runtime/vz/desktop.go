package vz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	if err := d.checkHost(arch); err != nil {
		return err
	}
	if secureBoot {
		return errNoSecurity
	}
	if err := d.byName(to, d.framework.newVariables); err != nil {
		return fmt.Errorf("writing the firmware's variables: %w", err)
	}
	return nil
}

// NewIdentifier is part of [vm.Identifies].
func (d *Driver) NewIdentifier(f vm.Firmware) ([]byte, error) {
	if err := d.checkHost(d.framework.arch()); err != nil {
		return nil, err
	}
	newIdentifier := d.framework.newIdentifier
	if f == vm.FirmwareMac {
		newIdentifier = d.framework.newMacIdentifier
	}
	identifier, err := newIdentifier()
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
	if err := m.run(ctx, virtualMachine.start); err != nil {
		return nil, fmt.Errorf("starting the machine: %w", err)
	}
	return m, nil
}

// defineDesktop lays out a machine and makes it, stopped.
func (d *Driver) defineDesktop(ctx context.Context, spec vm.DesktopSpec) (*desktop, error) {
	if err := d.checkHost(spec.Arch); err != nil {
		return nil, err
	}
	if err := errors.Join(checkDesktop(spec), d.checkSize(spec.CPUs, spec.Memory)); err != nil {
		return nil, err
	}
	m := &desktop{machine: newMachine(0)}
	config, err := d.configureDesktop(m, spec)
	if err != nil {
		m.closeFiles()
		return nil, err
	}
	if err := d.make(ctx, m.machine, func() (virtualMachine, error) { return d.framework.newDesktop(config) }); err != nil {
		return nil, err
	}
	return m, nil
}

// configureDesktop translates a spec. m owns the files that must outlive the call.
func (d *Driver) configureDesktop(m *desktop, spec vm.DesktopSpec) (*desktopConfiguration, error) {
	c := &desktopConfiguration{cpus: spec.CPUs, memory: spec.Memory, identifier: spec.Identifier, hardwareModel: spec.HardwareModel}
	if err := d.addBoot(c, spec); err != nil {
		return nil, err
	}
	// An empty disk does not boot, and the firmware goes on to the ISO.
	hardDisk := busVirtio
	if spec.Common {
		hardDisk = busNVMe
	}
	for _, f := range []struct {
		file *os.File
		name string
		bus  bus
	}{{spec.Disk, "disk", hardDisk}, {spec.ISO, "ISO", busUSB}, {spec.Drivers, "ISO", busUSB}} {
		if f.file == nil {
			continue
		}
		path, err := d.path(f.file)
		if err != nil {
			return nil, fmt.Errorf("the %s: %w", f.name, err)
		}
		readOnly := f.bus == busUSB
		c.disks = append(c.disks, desktopDisk{disk{path: path, serial: f.name, readOnly: readOnly, sync: !readOnly}, f.bus})
	}
	if spec.Network != nil {
		var err error
		if c.nic, err = m.addNIC(spec.Network); err != nil {
			return nil, fmt.Errorf("the NIC: %w", err)
		}
	}
	serial := io.Writer(m.console)
	if spec.Serial != nil {
		serial = spec.Serial
	}
	var err error
	if c.console, err = m.addConsole(serial, nil); err != nil {
		return nil, fmt.Errorf("the console: %w", err)
	}
	return c, nil
}

// addBoot says what is booted.
func (d *Driver) addBoot(c *desktopConfiguration, spec vm.DesktopSpec) (err error) {
	if spec.Direct == nil {
		if c.variables, err = d.path(spec.Variables); err != nil {
			return fmt.Errorf("the firmware's variables: %w", err)
		}
		return nil
	}
	c.direct = &direct{commandLine: spec.Direct.CommandLine + " console=hvc0"}
	if c.direct.kernel, err = d.path(spec.Direct.Kernel); err != nil {
		return fmt.Errorf("the kernel: %w", err)
	}
	if c.direct.initramfs, err = d.path(spec.Direct.Initrd); err != nil {
		return fmt.Errorf("the initramfs: %w", err)
	}
	return nil
}

// desktop is one running machine with a screen.
type desktop struct{ *machine }

// RunWindow is part of [vm.Windowed].
func (m *desktop) RunWindow(title string) error {
	return m.vm.(desktopMachine).window(title, screenWidth, screenHeight)
}

// PowerButton is part of [vm.Desktop].
func (m *desktop) PowerButton() error {
	asked, err := m.vm.(desktopMachine).requestStop()
	if err == nil && !asked {
		err = errors.New("the framework did not")
	}
	if err != nil {
		return fmt.Errorf("pressing the power button: %w", err)
	}
	return nil
}
