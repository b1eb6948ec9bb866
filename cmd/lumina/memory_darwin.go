package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// availableMemory is all memory, in bytes: macOS makes room by itself.
func availableMemory() (int64, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, fmt.Errorf("reading the memory's size: %w", err)
	}
	return int64(n), nil
}
