//go:build cgo

package vz

import (
	"errors"
	"fmt"

	apple "github.com/Code-Hex/vz/v3"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

func (appleFramework) rosetta() error {
	switch apple.LinuxRosettaDirectoryShareAvailability() {
	case apple.LinuxRosettaAvailabilityInstalled:
		return nil
	case apple.LinuxRosettaAvailabilityNotInstalled:
		return errors.New("it is not installed; install it with: softwareupdate --install-rosetta")
	}
	return fmt.Errorf("%w: this Mac and its macOS have none for guests", vm.ErrUnsupported)
}

func rosettaDevice() (apple.DirectorySharingDeviceConfiguration, error) {
	share, err := apple.NewLinuxRosettaDirectoryShare()
	if err != nil {
		return nil, err
	}
	device, err := apple.NewVirtioFileSystemDeviceConfiguration(rosettaTag)
	if err != nil {
		return nil, err
	}
	device.SetDirectoryShare(share)
	return device, nil
}
