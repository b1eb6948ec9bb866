//go:build cgo

package vz

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// errNoSave is what a Mac with an Intel processor says of snapshots.
var errNoSave = fmt.Errorf("%w: VMs are saved on a Mac with Apple silicon only", vm.ErrUnsupported)

func (*appleMachine) supportsSave() error  { return errNoSave }
func (*appleMachine) save(string) error    { return errNoSave }
func (*appleMachine) restore(string) error { return errNoSave }
