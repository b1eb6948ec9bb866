package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"

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
	if errors.Is(err, os.ErrNotExist) {
		return os.ErrProcessDone
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		open, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
		if err == nil && os.SameFile(open, file) {
			return nil
		}
	}
	return fmt.Errorf("process %d is another one", pid)
}
