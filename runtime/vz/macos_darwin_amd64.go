//go:build cgo

package vz

import (
	apple "github.com/Code-Hex/vz/v3"
)

// A Mac with an Intel processor runs no macOS in VMs: its driver is no
// [vm.MacDriver], and nothing calls these with a Mac's machine but by mistake.

func (appleFramework) newMacIdentifier() ([]byte, error) { return nil, errNoMac }

func macLoader() (apple.BootLoader, error) { return nil, errNoMac }

func addMac(*apple.VirtualMachineConfiguration, *desktopConfiguration) error { return errNoMac }
