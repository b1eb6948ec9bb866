package supervise

import (
	"net"

	"golang.org/x/sys/unix"
)

// Peer returns the process at the other end of a connection.
func Peer(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if ctlErr := raw.Control(func(fd uintptr) { pid, err = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID) }); ctlErr != nil {
		return 0, ctlErr
	}
	return pid, err
}

// hasOpen is for systems that say which files a process has open.
func hasOpen(int, string) error { return nil }
