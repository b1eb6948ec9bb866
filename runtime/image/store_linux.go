package image

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// exchange swaps two directories at once.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// users names the processes that hold a lock on f, as /proc/locks tells.
func users(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return "another process"
	}
	// 1: FLOCK ADVISORY READ PID MAJOR:MINOR:INODE START END, see proc_locks(5).
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	var pids []string
	self := fmt.Sprint(os.Getpid())
	for _, line := range strings.Split(string(locks), "\n") {
		if fields := strings.Fields(line); len(fields) > 5 && fields[5] == file && fields[4] != self {
			pids = append(pids, fields[4])
		}
	}
	if len(pids) == 0 {
		return "another process"
	}
	return "process " + strings.Join(pids, ", ")
}
