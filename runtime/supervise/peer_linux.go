package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Peer returns the process at the other end of a connection.
func Peer(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctlErr != nil {
		return 0, ctlErr
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// hasOpen returns an error when a process does not have a file open.
func hasOpen(pid int, path string) error {
	file, err := os.Stat(path)
	if err != nil {
		return err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	for _, f := range files {
		open, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
		if err == nil && os.SameFile(open, file) {
			return nil
		}
	}
	// One that is just ending has closed its files, and is no zombie yet.
	if hasEnded(pid) || err == nil && len(files) == 0 {
		return os.ErrProcessDone
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("process %d is another one", pid)
}

// hasEnded says whether a process is gone or is a zombie. A zombie has no files: root
// finds an empty list of them, other users are refused the list.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	// PID (NAME) STATE …, and a name may have any character.
	_, state, _ := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), " ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}
