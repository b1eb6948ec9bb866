package main

import (
	"math"

	"golang.org/x/sys/unix"
)

// keepInherited keeps files that the caller has left open, beside the standard
// ones, from the processes that this one starts: they are nothing for a
// hypervisor. A kernel before 5.11 does not know how.
func keepInherited() {
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
}
