//go:build linux

package boot

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Configure makes the booted or restored guest the one that the host wants.
func (s *System) Configure(c *protocol.Configure, clock func() (time.Time, error)) (*protocol.Configured, error) {
	if s.entered {
		s.marks = nil // of the boot, long ago
	}
	s.marks.add("asked to configure")
	tasks := []task{
		action{"seeding the entropy pool", func() error { return s.seed(c.Seed) }},
		action{"setting the host name", func() error { return unix.Sethostname([]byte(c.Hostname)) }},
		action{"configuring the network", func() error { return s.configureNetwork(c.Network) }},
		action{"entering the root", s.enterRoot},
		action{"writing the guest's names", func() error { return s.names.write(c) }},
		action{"adding the host's translator", s.addTranslator},
		action{"mounting volumes", func() error { return s.mountVolumes(c) }},
		action{"setting the clock", func() error { return s.SetClock(clock) }},
	}
	if s.beside() {
		tasks = append(tasks, action{"starting systemd", s.awaitInit})
	}
	if err := s.marks.run(tasks); err != nil {
		return nil, err
	}
	return &protocol.Configured{Marks: s.marks}, nil
}

// mountRoot puts the root file system together in rootDir.
func mountRoot(c commandLine) (marks, error) {
	disks, err := findDisks(c)
	if err != nil {
		return nil, err
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Beside the rest: disks keep that waiting.
	parameters := begin(setSysctls)
	var access func() error
	var m marks
	err = m.run(append(disks.iso, []task{
		mount{disks.root, lowerDir, "erofs", unix.MS_RDONLY, ""},
		action{"looking for devices", func() error { access = begin(func() error { return setDeviceAccess(lowerDir) }); return nil }},
		action{disks.scratch.String(), disks.mountScratch},
		action{"making the overlay's directories", makeOverlayDirs},
		mount{"lumina", rootDir, "overlay", 0,
			"lowerdir=" + lowerDir + ",upperdir=" + scratchDir + "/upper,workdir=" + scratchDir + "/work"},
		action{"making mount points", makeMountPoints},
		mount{"dev", rootDir + "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		mount{"proc", rootDir + "/proc", "proc", quiet, ""},
		mount{"sys", rootDir + "/sys", "sysfs", quiet, ""},
		mount{"devpts", rootDir + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		mount{"shm", rootDir + "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		mount{"mqueue", rootDir + "/dev/mqueue", "mqueue", quiet, ""},
		mount{"cgroup", rootDir + "/sys/fs/cgroup", "cgroup2", quiet, ""},
		action{"linking standard files", linkStandardFiles},
		action{"giving access to devices", func() error { return access() }},
		action{"setting kernel parameters", parameters},
	}...))
	return m, err
}

// seed adds entropy, credits it, and makes the kernel use it at once.
func (s *System) seed(b []byte) error {
	if len(b) == 0 || len(b) > 512 {
		return fmt.Errorf("seed of %d bytes, want 1 to 512", len(b))
	}
	if s.random == 0 {
		fd, err := unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.random = fd // open for when a restored guest is seeded
	}
	// struct rand_pool_info of linux/random.h: bits, bytes, data.
	info := make([]byte, 8, 8+len(b))
	*(*int32)(unsafe.Pointer(&info[0])) = int32(len(b) * 8)
	*(*int32)(unsafe.Pointer(&info[4])) = int32(len(b))
	info = append(info, b...)
	if err := ioctl(uintptr(s.random), unix.RNDADDENTROPY, unsafe.Pointer(&info[0])); err != nil {
		return err
	}
	return ioctl(uintptr(s.random), unix.RNDRESEEDCRNG, nil)
}

func ioctl(fd uintptr, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// SetClock is part of [agent.System].
func (*System) SetClock(clock func() (time.Time, error)) error {
	t, err := clock()
	if err != nil {
		return err
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

func makeOverlayDirs() error {
	for _, d := range []string{"/work", "/upper"} {
		err := os.Mkdir(scratchDir+d, 0o755)
		if d == "/upper" && errors.Is(err, os.ErrExist) {
			return nil // an exported disk's, of an earlier boot
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	// The root directory is the upper one: it takes what the image's is.
	return likeDirectory(scratchDir+"/upper", lowerDir)
}

// enterRoot makes the overlay the root directory, once. The initramfs cannot be
// left with pivot_root: it is covered, as switch_root(8) does.
func (s *System) enterRoot() error {
	if s.entered {
		return nil
	}
	root, err := s.mounted()
	if err != nil {
		return err
	}
	s.marks = append(s.marks, root...)
	slices.SortStableFunc(s.marks, func(a, b protocol.Mark) int { return cmp.Compare(a.At, b.At) })
	// Out of reach later, when what was changed is asked for.
	if s.lower, err = os.OpenRoot(lowerDir); err != nil {
		return err
	}
	if s.upper, err = os.OpenRoot(scratchDir + "/upper"); err != nil {
		return err
	}
	if err := unix.Chdir(rootDir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	s.entered = true
	return unix.Chdir("/")
}

// makeMountPoints makes directories of what the image has in their places, which may be
// links: they would lead out of the root.
func makeMountPoints() error {
	for _, name := range []string{"/dev", "/proc", "/sys"} {
		info, err := os.Lstat(rootDir + name)
		if err == nil && info.IsDir() {
			continue
		}
		if err == nil {
			err = os.Remove(rootDir + name)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Mkdir(rootDir+name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func linkStandardFiles() error {
	for _, l := range []struct{ name, target string }{
		// In devtmpfs, of which there is one.
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
	} {
		if err := os.Symlink(l.target, l.name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
