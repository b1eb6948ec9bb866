//go:build unix

package template

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/confine"
)

// private says why a directory is not its user's alone.
func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o077 != 0 {
		return errors.New("it is not this user's alone")
	}
	return nil
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	others := st.Mode & 0o077
	if os.Geteuid() == 0 && st.Gid == confine.Group {
		others &^= 0o070 // root's machines have users of their own, which open the memory
	}
	if int(st.Uid) != os.Geteuid() || others != 0 {
		return identity{}, fmt.Errorf("file %s is not this user's alone", f.Name())
	}
	return identity{Inode: uint64(st.Ino), Size: st.Size, Changed: changed(&st)}, nil
}

// eachExtent calls do for every part of f that is not a hole.
func eachExtent(f *os.File, size int64, do func(start, length int64) error) error {
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, seekData)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking for data: %w", err)
		}
		end, err := unix.Seek(int(f.Fd()), start, seekHole)
		if err != nil {
			return fmt.Errorf("looking for data: %w", err)
		}
		if err := do(start, end-start); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// allocated is how many bytes a file takes on its disk.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
