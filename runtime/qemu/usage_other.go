//go:build !linux

package qemu

import "github.com/abdul-abdi/lumina/runtime/vm"

// Usage is part of [vm.Meter].
func (p *process) Usage() (vm.Usage, error) { return vm.Usage{}, vm.ErrUnsupported }
