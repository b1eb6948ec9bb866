//go:build linux

package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// filling is an attribute of a volume's directory while the image's content is copied to
// it: a copy that was cut off is made again.
const filling = "trusted.lumina.filling"

// fillVolume makes an empty volume begin with what the image has in its place: the content,
// and the directory's own owner and mode. The volume's file system has no lost+found to
// begin with: programs take it for theirs.
func fillVolume(image *os.File, target string) error {
	volume, err := os.OpenFile(target, unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer volume.Close()
	fd := int(volume.Fd())
	// It stays where a check of the file system has put something into it.
	_ = unix.Unlinkat(fd, "lost+found", unix.AT_REMOVEDIR)
	_, err = unix.Fgetxattr(fd, filling, nil)
	cut := err == nil
	names, err := volume.Readdirnames(-1)
	if err != nil || len(names) > 0 && !cut {
		return err
	}
	for _, name := range names {
		if err := os.RemoveAll(path.Join(target, name)); err != nil {
			return err
		}
	}
	if err := unix.Fsetxattr(fd, filling, []byte("y"), 0); err != nil {
		return err
	}
	f := filler{top: fd, first: map[inode]string{}}
	if err := f.dir(image, volume, "."); err != nil {
		return fmt.Errorf("copying what the image has there: %w", err)
	}
	if err := unix.Syncfs(fd); err != nil {
		return err
	}
	return unix.Fremovexattr(fd, filling)
}

type inode struct{ device, number uint64 }

// filler copies a tree with all that its files have.
type filler struct {
	top   int              // the volume's directory
	first map[inode]string // the first name of each file with several
}

// dir copies what is in a directory, and then its attributes: the mode may forbid more.
func (f *filler) dir(from, to *os.File, name string) error {
	entries, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f.entry(int(from.Fd()), int(to.Fd()), e, path.Join(name, e)); err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
	}
	return copyAttributes(int(from.Fd()), int(to.Fd()))
}

func (f *filler) entry(from, to int, name, full string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		return both(from, to, name, unix.O_RDONLY|unix.O_DIRECTORY, func(a, b *os.File) error { return f.dir(a, b, full) })
	case unix.S_IFREG:
		key := inode{uint64(st.Dev), st.Ino}
		if first, ok := f.first[key]; ok && st.Nlink > 1 {
			return unix.Linkat(f.top, first, to, name, 0)
		}
		f.first[key] = full
		return both(from, to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(a, b *os.File) error {
			if _, err := io.Copy(b, a); err != nil {
				return err
			}
			return copyAttributes(int(a.Fd()), int(b.Fd()))
		})
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), to, name)
		}
		if err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil // a socket without a listener
	default:
		if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.Fchmodat(to, name, st.Mode&0o7777, 0)
	}
	return errors.Join(err, unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

// both opens a file of two directories, for reading and with flags.
func both(from, to int, name string, flags int, do func(a, b *os.File) error) error {
	const always = unix.O_NOFOLLOW | unix.O_CLOEXEC
	a, err := unix.Openat(from, name, unix.O_RDONLY|always, 0)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(a), name)
	defer source.Close()
	b, err := unix.Openat(to, name, flags|always, 0o600)
	if err != nil {
		return err
	}
	copied := os.NewFile(uintptr(b), name)
	return errors.Join(do(source, copied), copied.Close())
}

// copyAttributes copies owner, mode, extended attributes and times, in this order: a new
// owner takes mode bits and capabilities away.
func copyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func copyXattrs(from, to int) error {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, list)
	if n <= 0 || err != nil {
		return nil // a file system without
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		size, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:size], 0)
		}
		if err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
