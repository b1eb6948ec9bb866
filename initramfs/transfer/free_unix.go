//go:build unix

package transfer

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// share of the free space that a copy may take if no limit is given.
const share = 2

// defaultMaxSize is half of what is free where a copy goes; 0 when the file
// system cannot tell.
func defaultMaxSize(dir string) int64 {
	var st unix.Statfs_t
	for d := filepath.Clean(dir); unix.Statfs(d, &st) != nil; d = filepath.Dir(d) {
		if d == filepath.Dir(d) {
			return 0
		}
	}
	return max(int64(st.Bavail)*int64(st.Bsize)/share, block)
}

// writable says why nothing can be made in a directory.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return named(dir, err)
	}
	return nil
}
