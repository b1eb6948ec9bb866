package ext4

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Reserve takes the room on the host's disk that a file system of this size has
// for its journal and its first group. A journal that cannot be written ends a file
// system: with this one, a host's disk that is full for a while costs a guest what
// it writes meanwhile, and no more. It is for files where Format was.
func Reserve(f *os.File, size int64) error {
	l := layOut(size, false)
	end := int64(l.journalBlock()+l.journalBlocks) * blockSize
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, end)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return fmt.Errorf("taking %d MB of the host's disk for the journal: %w", end>>20, err)
}
