package erofs

import "golang.org/x/sys/unix"

// punch makes a hole in f, where the file system can.
func punch(f File, at, length int64) bool {
	file, ok := f.(interface{ Fd() uintptr }) // an *os.File, or what is around one
	return ok && unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length) == nil
}
