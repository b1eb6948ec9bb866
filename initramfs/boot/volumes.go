//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mkdir"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// mountVolumes mounts what the host gave beside the root, what is deeper later: it may be
// inside of another.
func (s *System) mountVolumes(c *protocol.Configure) error {
	depth := func(m protocol.Mount) int { return strings.Count(path.Clean(m.Path), "/") }
	mounts := slices.Clone(c.Mounts)
	slices.SortStableFunc(mounts, func(a, b protocol.Mount) int { return depth(a) - depth(b) })
	for _, m := range mounts {
		if err := s.mountVolume(m); err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		s.mounts = append(s.mounts, m)
		if path.Clean(m.Path) == "/etc" && m.Disk != "" && !m.ReadOnly {
			// It has the names of an earlier VM. A share stays as the host has it.
			if err := s.names.write(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *System) mountVolume(m protocol.Mount) error {
	image, err := openMountPoint(m.Path)
	if err != nil {
		return err
	}
	defer image.Close()
	flags := uintptr(unix.MS_NOATIME)
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if m.Served {
		return s.shares.mount(m, flags)
	}
	if m.Share != "" {
		return mountShare(m, flags)
	}
	disk, err := findDisk(m.Disk)
	if err != nil {
		return err
	}
	err = mount{disk, m.Path, "ext4", flags, ""}.apply()
	if m.ReadOnly && errors.Is(err, unix.EROFS) {
		return errors.New("the last VM that wrote to the volume did not close it; use it once without :ro to repair it")
	}
	if err != nil {
		return fmt.Errorf("mounting ext4: %w", err)
	}
	if m.ReadOnly {
		return nil
	}
	return fillVolume(image, m.Path)
}

// mountShare mounts a directory of the host's that is a device's.
func mountShare(m protocol.Mount, flags uintptr) error {
	// What the host has of setuid programs and devices is nothing for a guest.
	flags |= unix.MS_NOSUID | unix.MS_NODEV
	// What is read and written is not cached: the host may change the files, too.
	// Memory that is mapped is: programs want to write to it.
	err := mount{m.Share, m.Path, "9p", flags, "trans=virtio,version=9p2000.L,msize=262144,access=any,cache=mmap,directio"}.apply()
	if err == unix.ENOENT {
		// Not over 9p: the host's driver has virtiofs.
		err = mount{m.Share, m.Path, "virtiofs", flags, ""}.apply()
	}
	if err != nil {
		return fmt.Errorf("mounting the share: %w", err)
	}
	return nil
}

// openMountPoint opens the image's directory of a volume, and makes it if it is missing.
func openMountPoint(name string) (*os.File, error) {
	dir, err := os.OpenFile(name, unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = mkdir.All(name, 0o755); err == nil {
			dir, err = os.OpenFile(name, unix.O_DIRECTORY, 0)
		}
	}
	if errors.Is(err, unix.ENOTDIR) {
		return nil, errors.New("the image's file of that name, or a parent of it, is not a directory")
	}
	return dir, err
}
