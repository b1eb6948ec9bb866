package runtime

import "golang.org/x/sys/unix"

// hostMemory is how much memory this host has, in bytes.
func hostMemory() (int64, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	return int64(n), err
}
