package erofs

import (
	"os"

	"golang.org/x/sys/unix"
)

// punch makes a hole in f, where the file system can.
func punch(f File, at, length int64) bool {
	file, ok := f.(*os.File)
	return ok && unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length) == nil
}
