package desktop

import (
	"os"

	"golang.org/x/sys/unix"
)

// clone makes a new file that shares what another has, where the file system can.
func clone(name string, from *os.File) bool {
	return unix.Fclonefileat(int(from.Fd()), unix.AT_FDCWD, name, unix.CLONE_NOOWNERCOPY) == nil
}
