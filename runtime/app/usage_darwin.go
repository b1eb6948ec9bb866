package app

import "golang.org/x/sys/unix"

// hostMemory is this host's, in bytes; 0 when it is not known.
func hostMemory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n)
}

// processLoad knows nothing here: machines are processes of the system's.
func processLoad(int) Load { return Load{} }

func emulated() bool { return false }
