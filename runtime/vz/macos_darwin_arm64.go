//go:build cgo

package vz

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	apple "github.com/Code-Hex/vz/v3"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

var _ vm.MacDriver = (*Driver)(nil)

// The screen of a Mac, in pixels.
const (
	macWidth, macHeight = 1920, 1200
	macPixelsPerInch    = 80
)

func (appleFramework) newMacIdentifier() ([]byte, error) {
	identifier, err := apple.NewMacMachineIdentifier()
	if err != nil {
		return nil, err
	}
	return bytes.Clone(identifier.DataRepresentation()), nil
}

// LatestMacOS is part of [vm.MacDriver].
func (d *Driver) LatestMacOS() (string, error) {
	if err := d.checkHost("arm64"); err != nil {
		return "", err
	}
	url, err := apple.GetLatestSupportedMacOSRestoreImageURL()
	if err != nil {
		return "", fmt.Errorf("asking Apple for the newest macOS: %w", err)
	}
	return url, nil
}

// ReadMacOS is part of [vm.MacDriver].
func (d *Driver) ReadMacOS(image string) (*vm.MacOS, error) {
	if err := d.checkHost("arm64"); err != nil {
		return nil, err
	}
	restore, err := apple.LoadMacOSRestoreImageFromPath(image)
	if err != nil {
		return nil, fmt.Errorf("reading restore image %q: %w", image, err)
	}
	needs := restore.MostFeaturefulSupportedConfiguration()
	model := needs.HardwareModel()
	version := fmt.Sprintf("%s (%s)", restore.OperatingSystemVersion(), restore.BuildVersion())
	if !model.Supported() {
		return nil, fmt.Errorf("restore image %q: %w: macOS %s does not run in VMs of this Mac and its macOS", image, vm.ErrUnsupported, version)
	}
	return &vm.MacOS{Version: version, HardwareModel: bytes.Clone(model.DataRepresentation()),
		CPUs: int(needs.MinimumSupportedCPUCount()), Memory: int64(needs.MinimumSupportedMemorySize())}, nil
}

// WriteAuxiliary is part of [vm.MacDriver].
func (d *Driver) WriteAuxiliary(hardwareModel []byte, to *os.File) error {
	model, err := macModel(hardwareModel)
	if err != nil {
		return err
	}
	err = d.byName(to, func(name string) error {
		_, err := apple.NewMacAuxiliaryStorage(name, apple.WithCreatingMacAuxiliaryStorage(model))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the auxiliary storage: %w", err)
	}
	return nil
}

func macModel(data []byte) (*apple.MacHardwareModel, error) {
	model, err := apple.NewMacHardwareModelWithData(data)
	if err != nil {
		return nil, fmt.Errorf("the hardware model: %w", err)
	}
	if !model.Supported() {
		return nil, fmt.Errorf("the hardware model: %w: this Mac and its macOS cannot be it", vm.ErrUnsupported)
	}
	return model, nil
}

func macLoader() (apple.BootLoader, error) { return apple.NewMacOSBootLoader() }

// addMac adds what makes a machine a Mac: platform, screen, keyboard, trackpad.
func addMac(config *apple.VirtualMachineConfiguration, c *desktopConfiguration) error {
	model, err := macModel(c.hardwareModel)
	if err != nil {
		return err
	}
	identifier, err := apple.NewMacMachineIdentifierWithData(c.identifier)
	if err != nil {
		return fmt.Errorf("the machine's identifier: %w", err)
	}
	auxiliary, err := apple.NewMacAuxiliaryStorage(c.variables)
	if err != nil {
		return fmt.Errorf("the auxiliary storage: %w", err)
	}
	platform, err := apple.NewMacPlatformConfiguration(
		apple.WithMacHardwareModel(model), apple.WithMacMachineIdentifier(identifier), apple.WithMacAuxiliaryStorage(auxiliary))
	if err != nil {
		return fmt.Errorf("the platform: %w", err)
	}
	config.SetPlatformVirtualMachineConfiguration(platform)
	screen, err := apple.NewMacGraphicsDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	display, err := apple.NewMacGraphicsDisplayConfiguration(macWidth, macHeight, macPixelsPerInch)
	if err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	screen.SetDisplays(display)
	config.SetGraphicsDevicesVirtualMachineConfiguration([]apple.GraphicsDeviceConfiguration{screen})
	// Of macOS 13 and newer; older guests take the other pointer.
	trackpad, err := apple.NewMacTrackpadConfiguration()
	if err != nil {
		return fmt.Errorf("the trackpad: %w", err)
	}
	return addInput(config, trackpad)
}

// progressTime is how often an installation's progress is looked at: the
// framework's installer has no channel for it.
const progressTime = 500 * time.Millisecond

// giveUpTime is how long an installer that is given up has for its end.
const giveUpTime = 10 * time.Second

// InstallMacOS is part of [vm.MacDriver].
func (d *Driver) InstallMacOS(ctx context.Context, spec vm.DesktopSpec, image string, progress func(float64)) error {
	m, err := d.defineDesktop(ctx, spec)
	if err != nil {
		return err
	}
	defer m.closeFiles()
	// The installer starts the machine, and leaves it running or not.
	made := m.vm.(*appleMachine).vm
	states := made.StateChangedNotify()
	installer, err := apple.NewMacOSInstaller(made, image)
	if err != nil {
		return fmt.Errorf("installing macOS: %w", err)
	}
	installed := make(chan error, 1)
	go func() { installed <- installer.Install(ctx) }()
	ticker := time.NewTicker(progressTime)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			progress(installer.FractionCompleted())
			continue
		case err = <-installed:
		}
		break
	}
	// One that is given up answers when it has let go of the disk; one that never
	// began does not.
	giveUp := time.NewTimer(giveUpTime)
	defer giveUp.Stop()
	select {
	case <-installer.Done():
	case <-giveUp.C:
	}
	m.end(made, states)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("installing macOS: %w", err)
	}
	progress(1)
	return nil
}

// end stops a machine that is not watched, and waits until it has stopped or patience ends.
func (m *desktop) end(made *apple.VirtualMachine, states <-chan apple.VirtualMachineState) {
	if !made.CanStop() {
		return // it has ended
	}
	m.Kill()
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	for {
		select {
		case state := <-states:
			if state == apple.VirtualMachineStateStopped || state == apple.VirtualMachineStateError {
				return
			}
		case <-patience.C:
			return
		}
	}
}
