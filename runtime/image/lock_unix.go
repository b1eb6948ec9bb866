//go:build unix

package image

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func lockShared(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_SH) }

// lockExclusive says whether somebody else holds a lock, in place of waiting.
func lockExclusive(f *os.File) (busy bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
