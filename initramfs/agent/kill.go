//go:build linux

package agent

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// killSession kills the process group of a session leader, and then what moved
// to other groups of that session, as a shell's job control does.
func killSession(leader int) {
	_ = syscall.Kill(-leader, syscall.SIGKILL)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == leader {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil && sessionOf(string(stat)) == leader {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// sessionOf reads the session from /proc/PID/stat (proc_pid_stat(5)): the
// fourth field after the command name, which is in parentheses and may hold
// anything. It returns 0 when there is none.
func sessionOf(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 {
		return 0
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return 0
	}
	return session
}
