//go:build darwin && !cgo

package vz

import (
	"errors"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// New makes a driver, which this build cannot.
func New() (vm.Driver, error) {
	return nil, errors.New("this lumina was built without cgo, which Virtualization.framework needs: build it on a Mac with make build")
}
