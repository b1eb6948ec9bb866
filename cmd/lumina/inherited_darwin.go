package main

import (
	"os"
	"strconv"
	"syscall"
)

// keepInherited keeps files that the caller has left open, beside the standard
// ones, from the processes that this one starts.
func keepInherited() {
	files, _ := os.ReadDir("/dev/fd")
	for _, f := range files {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
