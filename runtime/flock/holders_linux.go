package flock

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holders are the other processes that hold a lock on f, as /proc/locks tells.
func Holders(f *os.File) (pids []int) {
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	file, err := identity(f)
	if err != nil {
		return nil
	}
	// 1: FLOCK ADVISORY READ PID MAJOR:MINOR:INODE START END, see proc_locks(5).
	for _, line := range strings.Split(string(locks), "\n") {
		fields := strings.Fields(line)
		if len(fields) <= 5 || fields[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 && pid != os.Getpid() && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// identity is what /proc/locks calls a file. That is not what stat(2) says where a file
// system has several devices: overlayfs, which containers have, and btrfs.
func identity(f *os.File) (string, error) {
	if s := identityOfMount(f); s != "" {
		return s, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino), nil
}

// identityOfMount is "" before Linux 5.14, and where /proc says less than it could.
func identityOfMount(f *os.File) string {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return ""
	}
	values := map[string]string{}
	for _, line := range strings.Split(string(info), "\n") {
		name, value, _ := strings.Cut(line, ":")
		values[name] = strings.TrimSpace(value)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || values["ino"] == "" {
		return ""
	}
	// ID PARENT MAJOR:MINOR ROOT …, see proc_pid_mountinfo(5).
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != values["mnt_id"] {
			continue
		}
		major, minor, _ := strings.Cut(fields[2], ":")
		a, errMajor := strconv.ParseUint(major, 10, 32)
		b, errMinor := strconv.ParseUint(minor, 10, 32)
		if errMajor == nil && errMinor == nil {
			return fmt.Sprintf("%02x:%02x:%s", a, b, values["ino"])
		}
	}
	return ""
}
