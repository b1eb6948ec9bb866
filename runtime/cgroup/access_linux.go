package cgroup

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// delegated says whether the system's manager has given away what is below dir:
// systemd marks where it did, and a container has what it sees, whose root differs
// from a host's by having a type.
func delegated(mount, dir string) bool {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.type")); err == nil {
		return true
	}
	for ; strings.HasPrefix(dir, mount+"/"); dir = filepath.Dir(dir) {
		for _, mark := range []string{"trusted.delegate", "user.delegate"} {
			value := make([]byte, 1)
			if n, err := unix.Getxattr(dir, mark, value); err == nil && n == 1 && value[0] == '1' {
				return true
			}
		}
	}
	return false
}
