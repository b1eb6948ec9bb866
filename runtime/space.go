package runtime

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DefaultDiskReserve is what of the host's disk a VM is not started into, in
// bytes: disks are sparse, and the error that their guests get when there is no
// room left reaches them in the middle of their work.
const DefaultDiskReserve = 64 << 20

// NoDiskReserve is a reserve of nothing.
const NoDiskReserve = -1

// templateRoom is how much room a template has to have beside the reserve, in
// bytes. It takes what its guest has touched of its memory.
const templateRoom = 256 << 20

// FreeSpace is how many bytes this user can still write below a directory, which
// need not be there yet.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	for err != nil && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &st)
	}
	return int64(st.Bavail) * int64(st.Bsize), err
}

// CheckSpace says whether the reserve of a directory's disk is free; 0 is
// DefaultDiskReserve.
func CheckSpace(dir string, reserve int64) error {
	return checkSpace(dir, reserve, 0)
}

// keptFree is a reserve in bytes.
func keptFree(reserve int64) int64 {
	if reserve == 0 {
		return DefaultDiskReserve
	}
	return max(reserve, 0)
}

func checkSpace(dir string, reserve, more int64) error {
	reserve = keptFree(reserve)
	free, err := FreeSpace(dir)
	if err != nil || free >= reserve+more {
		return nil // who cannot know it tries
	}
	const mega = 1 << 20
	return fmt.Errorf("the host's disk is full: %d MB are free for %s, of which %d MB are kept; remove images, volumes or templates, or keep less with LUMINA_DISK_RESERVE", free/mega, dir, reserve/mega)
}
