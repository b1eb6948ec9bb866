//go:build linux

package boot

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Unpack writes an archive into the guest's root or a staged tree.
func (s *System) Unpack(u *protocol.Unpack, archive io.Reader) error {
	dir := "/"
	if u.Staged != "" {
		if err := s.openLayers(); err != nil {
			return err
		}
		var err error
		if dir, err = s.layers.stagedDir(u.Staged); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if u.Memory {
			if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
				return err
			}
			s.layers.memory = append(s.layers.memory, dir)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpack(root, archive)
}

// unpack writes an archive's entries below root, each in place of what has its
// name. No name and no symbolic link leads out of root.
func unpack(root *os.Root, archive io.Reader) error {
	u := &unpacker{root: root}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			return u.setTimes()
		}
		if err != nil {
			return err
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

type unpacker struct {
	root *os.Root
	dirs []*tar.Header // whose times are set when nothing is written into them any more
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(strings.Trim(h.Name, "/"))
	if h.Typeflag == tar.TypeDir {
		return u.directory(name, h)
	}
	if err := u.root.RemoveAll(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return u.root.Link(path.Clean(strings.Trim(h.Linkname, "/")), name)
	}
	if h.Typeflag == tar.TypeReg {
		return u.file(name, h, r)
	}
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, base := int(dir.Fd()), path.Base(name)
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, at, base)
	case tar.TypeFifo:
		err = unix.Mknodat(at, base, unix.S_IFIFO|mode, 0)
	case tar.TypeChar:
		err = unix.Mknodat(at, base, unix.S_IFCHR|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeBlock:
		err = unix.Mknodat(at, base, unix.S_IFBLK|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	default:
		return fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(at, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(at, base, mode, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at, base, times(h), unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) directory(name string, h *tar.Header) error {
	info, err := u.root.Lstat(name)
	if err == nil && !info.IsDir() {
		if err := u.root.Remove(name); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = u.root.Mkdir(name, 0o700)
	}
	if err != nil {
		return err
	}
	d, err := u.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	u.dirs = append(u.dirs, h)
	return describe(d, h)
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := describe(f, h); err != nil {
		return err
	}
	return setTimes(f, h)
}

// describe sets owner, mode and extended attributes.
func describe(f *os.File, h *tar.Header) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrRecord); ok {
			if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
		}
	}
	return nil
}

func (u *unpacker) setTimes() error {
	for _, h := range slices.Backward(u.dirs) {
		d, err := u.root.Open(path.Clean(strings.Trim(h.Name, "/")))
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced by a later entry
		}
		if err != nil {
			return err
		}
		err = setTimes(d, h)
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func times(h *tar.Header) []unix.Timespec {
	t := unix.NsecToTimespec(h.ModTime.UnixNano())
	return []unix.Timespec{t, t}
}

// setTimes sets both times of an open file.
func setTimes(f *os.File, h *tar.Header) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, descriptor(f), times(h), 0)
}
