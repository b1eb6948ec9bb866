//go:build !linux

package qemu

import (
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

func startTPM(_, _ *os.File) (*tpm, error) {
	return nil, fmt.Errorf("a TPM: %w", vm.ErrUnsupported)
}
