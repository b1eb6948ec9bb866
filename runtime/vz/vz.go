// Package vz runs virtual machines with Apple's Virtualization.framework, on
// macOS 14 or newer. This file needs no macOS: what a machine is made
// of. The driver itself, driver_darwin.go, translates that for the framework.
package vz

import (
	"errors"
	"fmt"
	"io"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// minimumMacOS is the first release with all that the driver uses.
const minimumMacOS = 14

// ErrMacOS is wrapped when this macOS is too old.
var ErrMacOS = fmt.Errorf("macOS %d or newer is needed", minimumMacOS)

// checkMacOS compares a release, such as "14.2.1", as numbers.
func checkMacOS(release string) error {
	var major int
	if _, err := fmt.Sscanf(release, "%d", &major); err != nil {
		return fmt.Errorf("%w: this one says it is %q", ErrMacOS, release)
	}
	if major < minimumMacOS {
		return fmt.Errorf("%w: this is %s", ErrMacOS, release)
	}
	return nil
}

// checkSpec says what of a spec the framework cannot do.
func checkSpec(spec vm.Spec) error {
	if err := checkMachine(spec.CPUs, spec.Memory); err != nil {
		return err
	}
	if spec.Nested {
		return fmt.Errorf("%w: this driver's guests do not run virtual machines", vm.ErrUnsupported)
	}
	return checkKernel(spec.Kernel, spec.Arch)
}

func checkMachine(cpus int, memory int64) error {
	if cpus < 1 || memory < 32<<20 {
		return fmt.Errorf("%d cpus and %d bytes of memory: at least 1 and 32 MiB are needed", cpus, memory)
	}
	if memory%(1<<20) != 0 {
		return fmt.Errorf("%d bytes of memory: the framework takes whole mebibytes", memory)
	}
	return nil
}

var (
	// errNoRosetta is what a Mac with an Intel processor says of Rosetta.
	errNoRosetta = fmt.Errorf("%w: it exists on Macs with Apple silicon only", vm.ErrUnsupported)
	// errNoMac is what a Mac with an Intel processor says of macOS.
	errNoMac = fmt.Errorf("%w: macOS runs in VMs of a Mac with Apple silicon only", vm.ErrUnsupported)
	// errNoSecurity is what the framework has not.
	errNoSecurity = fmt.Errorf("%w: Virtualization.framework has neither a TPM nor Secure Boot for guests other than macOS", vm.ErrUnsupported)
)

// checkDesktop says what of a desktop's spec the framework cannot do.
func checkDesktop(spec vm.DesktopSpec) error {
	if err := checkMachine(spec.CPUs, spec.Memory); err != nil {
		return err
	}
	if spec.SecureBoot || spec.TPM != nil {
		return errNoSecurity
	}
	if spec.HardwareModel != nil {
		if spec.Arch != "arm64" {
			return errNoMac
		}
		if spec.Direct != nil {
			return fmt.Errorf("%w: a Mac boots macOS only, not a kernel of an ISO", vm.ErrUnsupported)
		}
		if len(spec.HardwareModel) == 0 || len(spec.Identifier) == 0 {
			return errors.New("a Mac without hardware model or identifier: its manifest has lost them")
		}
	}
	if spec.Identifier != nil && len(spec.Identifier) == 0 {
		return errors.New("the machine's identifier is empty: its manifest has lost it")
	}
	if spec.Direct != nil {
		return checkKernel(spec.Direct.Kernel, spec.Arch)
	}
	return nil
}

// checkKernel looks whether f is what the framework boots: it says nothing but
// "internal error" of anything else (the kernel's booting.rst and, of Macs with an
// Intel processor, boot.rst).
func checkKernel(f io.ReaderAt, arch string) error {
	head := make([]byte, 0x206)
	if n, err := f.ReadAt(head, 0); n < 64 {
		return fmt.Errorf("reading the kernel: %w", err)
	}
	switch {
	case arch == "amd64":
		if string(head[0x202:]) != "HdrS" {
			return errors.New("the kernel is not a bzImage, which a Mac with an Intel processor boots: make the image on this Mac with lumina images create")
		}
		return nil
	case string(head[56:60]) == "ARM\x64":
		return nil
	case head[0] == 0x1f && head[1] == 0x8b:
		return errors.New("the kernel is compressed with gzip: an uncompressed arm64 Image is needed")
	case string(head[:2]) == "MZ" && string(head[4:8]) == "zimg":
		return errors.New("the kernel is a compressed EFI image (vmlinuz.efi): an uncompressed arm64 Image is needed")
	}
	return errors.New("the kernel is not an arm64 Image")
}
