//go:build unix

package image

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Free is how many bytes there are for images on the store's file system.
func (s *Store) Free() (int64, error) {
	dir := s.dir
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(min(st.Bavail*uint64(st.Bsize), 1<<62)), nil
		}
		parent := filepath.Dir(dir)
		if !os.IsNotExist(err) || parent == dir { // the store is made when it is needed
			return 0, fmt.Errorf("looking for free space: %w", err)
		}
		dir = parent
	}
}

// allocated is how many bytes a file takes on its disk.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// MaxSize is how large a new image may be: what was asked for, in bytes, or half of
// what is free.
func (s *Store) MaxSize(asked int64) (int64, error) {
	if asked > 0 {
		return asked, nil
	}
	free, err := s.Free()
	return max(free/2, 1), err
}
