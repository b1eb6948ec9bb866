package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// Begin begins to bring a part of a file to disk, so that [Sync] finds less to do. It
// does not wait, and promises nothing.
func Begin(f *os.File, at, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), at, length, unix.SYNC_FILE_RANGE_WRITE)
}
