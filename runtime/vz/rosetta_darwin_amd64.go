//go:build cgo

package vz

import (
	apple "github.com/Code-Hex/vz/v3"
)

func (appleFramework) rosetta() error { return errNoRosetta }

func rosettaDevice() (apple.DirectorySharingDeviceConfiguration, error) { return nil, errNoRosetta }
