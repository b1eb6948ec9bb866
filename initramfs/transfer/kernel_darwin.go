package transfer

import (
	"io"
	"os"
)

// isKernels: a Mac has no such file systems.
func isKernels(*os.File) bool { return false }

func readKernels(f *os.File) (io.Reader, error) { return f, nil }
