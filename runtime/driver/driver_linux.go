package driver

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/qemu"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// New makes this system's driver.
func New(o Options) (vm.Driver, error) {
	a, err := qemu.ParseAccelerator(o.Accelerator)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return qemu.New(qemu.Options{Accelerator: a, ControlGroup: o.ControlGroup}), nil
}
