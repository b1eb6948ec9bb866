package app

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// clockTicks is what the kernel counts CPU time in for programs (USER_HZ), a second.
const clockTicks = 100

// hostMemory is this host's, in bytes; 0 when it is not known.
func hostMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// emulated says whether this user has no KVM. That a KVM which is there does not work is
// found out by the first machine, see lumina doctor.
func emulated() bool { return unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil }

// processLoad is what a process and those that it started take.
func processLoad(pid int) (l Load) {
	return addLoad(l, pid, 0)
}

// maxDepth bounds how deep processes are that a supervisor started.
const maxDepth = 4

func addLoad(l Load, pid, depth int) Load {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || depth > maxDepth {
		return l
	}
	// The name, in parentheses, may have anything in it.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 22 {
		return l
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	l.CPU += float64(number(11)+number(12)) / clockTicks
	l.Memory += number(21) * int64(os.Getpagesize())
	// A Go program starts others from any of its threads.
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, c := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(c); err == nil {
				l = addLoad(l, n, depth+1)
			}
		}
	}
	return l
}
