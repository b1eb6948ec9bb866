// Package driver makes the VM driver of this system: QEMU on Linux,
// Virtualization.framework on macOS.
package driver

import "errors"

// ErrOptions is wrapped when an option is wrong.
var ErrOptions = errors.New("bad options of the VM driver")

// Options are what a user decides of this system's driver. Zero values mean that the
// driver finds out for itself.
type Options struct {
	// Accelerator is how QEMU runs guests: kvm, hvf or tcg. Virtualization.framework
	// has one way, and ignores it.
	Accelerator string
	// ControlGroup is the directory of control groups in which each QEMU gets one of
	// its own; Linux only.
	ControlGroup string
}
