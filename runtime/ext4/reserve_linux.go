package ext4

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Reserve takes room on the host's disk for what a file system of this size needs to
// go on: its journal, what it says of all its groups and of its first files, and what
// its guest writes first, with the directories and maps of that. A journal, directory or
// map that cannot be written ends a file system: with this one, a host's disk that is
// full for a while costs a guest files that it writes meanwhile, and no more. It is for
// files where Format was.
func Reserve(f *os.File, size int64) error {
	l := layOut(size, false)
	for _, r := range l.reserved() {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, r.start, r.length)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("taking %d MB of the host's disk for the file system: %w", r.length>>20, &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err})
		}
	}
	return nil
}
