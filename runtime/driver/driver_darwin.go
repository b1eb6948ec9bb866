package driver

import (
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vz"
)

// New makes this system's driver.
func New(Options) (vm.Driver, error) { return vz.New() }
