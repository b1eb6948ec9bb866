//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// layers is what a guest has that runs the steps of a build: each writes to a
// directory of its own, and the guest's root is all of them joined.
//
// What lies below the root is reached through descriptors that were opened
// before the root was entered.
type layers struct {
	scratch *os.File // the scratch disk's directory; nil before the first layer
	image   *os.File // the image's root
	lower   []string // of the overlay, the highest first; the image's root is not in it
	mounts  []string // of the layer that is under way
	made    []made   // for them, parents first
	memory  []string // staged trees that are in memory
	disks   map[string]bool
}

// made is a file or directory that was made for a mount. What held it has the time that
// it had before, unless the layer changed more of it.
type made struct {
	path          string
	before, after unix.Timespec
}

// setTime sets when a directory was changed.
func setTime(name string, to unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, to}, 0)
}

func changed(name string) (unix.Timespec, error) {
	var st unix.Stat_t
	err := unix.Stat(name, &st)
	return st.Mtim, err
}

// descriptor is a path to what an open file names.
func descriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (l *layers) dir(parts ...string) string {
	return path.Join(append([]string{descriptor(l.scratch)}, parts...)...)
}

// NextLayer ends the layer that is under way, if there is one, and begins
// another: what its mounts bring is no part of it.
func (s *System) NextLayer(l *protocol.Layer) error {
	if err := s.openLayers(); err != nil {
		return err
	}
	if err := s.endLayer(); err != nil {
		return err
	}
	if err := s.stack(); err != nil {
		return err
	}
	if l.Dir != "" {
		if err := os.MkdirAll(l.Dir, 0o755); err != nil {
			return err
		}
	}
	for _, m := range l.Mounts {
		if err := s.mountInLayer(m); err != nil {
			return fmt.Errorf("mounting at %s: %w", m.Path, err)
		}
	}
	return nil
}

func (s *System) openLayers() error {
	if s.upper == nil || s.lower == nil {
		return errors.New("the guest has no root of its own")
	}
	if s.layers.scratch != nil {
		return nil
	}
	upper, err := s.upper.Open(".")
	if err != nil {
		return err
	}
	defer upper.Close()
	scratch, err := os.Open(descriptor(upper) + "/..")
	if err != nil {
		return err
	}
	if s.layers.image, err = s.lower.Open("."); err != nil {
		scratch.Close()
		return err
	}
	s.layers.scratch, s.layers.disks = scratch, map[string]bool{}
	s.layers.lower = []string{s.layers.dir("upper")}
	return nil
}

// endLayer ends every process and takes away what the layer had mounted.
func (s *System) endLayer() error {
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	l := &s.layers
	for _, m := range slices.Backward(l.mounts) {
		// Detached, since a process that was killed may not be gone yet.
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %s: %w", m, err)
		}
	}
	for _, m := range slices.Backward(l.made) {
		parent := path.Dir(m.path)
		at, err := changed(parent)
		if err != nil || os.Remove(m.path) != nil {
			continue // a directory that something was written into stays
		}
		if at == m.after {
			at = m.before
		}
		if err := setTime(parent, at); err != nil {
			return err
		}
	}
	l.mounts, l.made = nil, nil
	return nil
}

// forget takes away the staged trees that are in memory: what is secret to one
// layer is to the next, whose processes may look at PID 1's open files.
func (l *layers) forget() error {
	for _, dir := range l.memory {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting a staged tree: %w", err)
		}
	}
	l.memory = nil
	return nil
}

// stack puts an empty directory on top of all that was changed so far, and makes
// the result the root.
func (s *System) stack() error {
	l := &s.layers
	dir := l.dir("layers", fmt.Sprint(len(l.lower)))
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(path.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	upper, root := path.Join(dir, "upper"), path.Join(dir, "root")
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return err
	}
	if err := errors.Join(unix.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777)); err != nil {
		return err
	}
	lower := strings.Join(append(slices.Clone(l.lower), descriptor(l.image)), ":")
	options := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + path.Join(dir, "work")
	if len(options) >= os.Getpagesize() {
		return errors.New("too many layers in one VM")
	}
	if err := unix.Mount("lumina", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the layers: %w", err)
	}
	for _, d := range []string{"dev", "proc", "sys"} {
		if err := unix.Mount("/"+d, path.Join(root, d), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mounting /%s: %w", d, err)
		}
	}
	// What is below the layer, for what did not change.
	below, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	changed, err := os.OpenRoot(upper)
	if err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	s.upper.Close()
	s.lower.Close()
	s.upper, s.lower = changed, below
	l.lower = append([]string{upper}, l.lower...)
	return unix.Chdir("/")
}

// stagedDir is where a staged tree is; names have no slash.
func (l *layers) stagedDir(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("staged tree %q: not a name", name)
	}
	return l.dir("staged", name), nil
}

func (s *System) mountInLayer(m protocol.LayerMount) error {
	l := &s.layers
	source := ""
	switch {
	case m.Staged != "":
		dir, err := l.stagedDir(m.Staged)
		if err != nil {
			return err
		}
		source = path.Join(dir, "data")
	case m.Disk != "":
		var err error
		if source, err = s.diskDir(m); err != nil {
			return err
		}
	}
	isDir := true
	if source != "" {
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		isDir = info.IsDir()
	}
	if err := l.makeMountPoint(m.Path, isDir); err != nil {
		return err
	}
	if source == "" {
		data := "mode=1777"
		if m.Size > 0 {
			data += fmt.Sprintf(",size=%d", m.Size)
		}
		if err := unix.Mount("tmpfs", m.Path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
			return err
		}
		l.mounts = append(l.mounts, m.Path)
		return nil
	}
	if err := unix.Mount(source, m.Path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	l.mounts = append(l.mounts, m.Path)
	if m.ReadOnly {
		return unix.Mount("", m.Path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return nil
}

// makeMountPoint makes a file or a directory with its parents, and remembers
// what it made.
func (l *layers) makeMountPoint(name string, isDir bool) error {
	if !path.IsAbs(name) || path.Clean(name) == "/" {
		return fmt.Errorf("not a place for a mount")
	}
	at := ""
	parts := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	for n, part := range parts {
		at += "/" + part
		if _, err := os.Stat(at); err == nil {
			continue
		}
		before, err := changed(path.Dir(at))
		if err != nil {
			return err
		}
		if n == len(parts)-1 && !isDir {
			var f *os.File
			if f, err = os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
				err = f.Close()
			}
		} else {
			err = os.Mkdir(at, 0o755)
		}
		if err != nil {
			return err
		}
		after, err := changed(path.Dir(at))
		if err != nil {
			return err
		}
		l.made = append(l.made, made{at, before, after})
	}
	return nil
}

// diskDir is the directory of a disk that a mount shows. The disk is mounted
// once, where no process of the guest's sees it.
func (s *System) diskDir(m protocol.LayerMount) (string, error) {
	l := &s.layers
	dir, err := l.stagedDir("disk-" + m.Disk)
	if err != nil {
		return "", err
	}
	data := path.Join(dir, "data")
	if !l.disks[m.Disk] {
		device, err := findDisk(m.Disk)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		if err := unix.Mount(device, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
			return "", err
		}
		l.disks[m.Disk] = true
		s.mounts = append(s.mounts, protocol.Mount{Disk: m.Disk, Path: dir})
	}
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", err
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o755
	}
	return data, errors.Join(unix.Chown(data, int(m.UID), int(m.GID)), unix.Chmod(data, mode))
}
