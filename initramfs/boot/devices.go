//go:build linux

package boot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// access is the group and mode of a device.
type access struct {
	group string // the image's; the superuser's where it has none of the name
	mode  uint32
}

// devices have the access that systemd's udev rules give them, which no udev does here
// (rules.d/50-udev-default.rules). What is missing is as the kernel makes it: for all,
// like null, or for the superuser.
var devices = map[string]access{
	"fuse":         {"", 0o666},
	"kvm":          {"kvm", 0o666},
	"loop-control": {"disk", 0o660},
	"net/tun":      {"", 0o666},
	"ppp":          {"dip", 0o660},
	"ptmx":         {"tty", 0o666},
	"rfkill":       {"netdev", 0o664},
	"tty":          {"tty", 0o666},
	"udmabuf":      {"kvm", 0o660},
	"vhost-net":    {"kvm", 0o666},
	"vhost-vsock":  {"kvm", 0o666},
	"vsock":        {"", 0o666},
}

// classes are devices whose names begin alike. All disks are the group disk's.
var classes = []struct {
	prefix string
	access
}{
	{"dri/card", access{"video", 0o660}},
	{"dri/render", access{"render", 0o666}},
	{"input/", access{"input", 0o660}},
	{"snd/", access{"audio", 0o660}},
	{"sr", access{"cdrom", 0o660}},
	{"hvc", access{"dialout", 0o660}},
	{"ttyAMA", access{"dialout", 0o660}},
	{"ttyS", access{"dialout", 0o660}},
}

// directories of /dev that hold some of them.
var deviceDirs = []string{"", "dri/", "input/", "net/", "snd/"}

// setDeviceAccess does what udev would, with the groups of the image at root. There is one
// devtmpfs, wherever it is mounted.
func setDeviceAccess(root string) error {
	group, err := readInside(root, "etc/group")
	if err != nil {
		return err
	}
	for _, dir := range deviceDirs {
		entries, err := os.ReadDir("/dev/" + dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			a, ok := accessOf(dir+e.Name(), e.Type())
			if !ok {
				continue
			}
			name := "/dev/" + dir + e.Name()
			err := unix.Chmod(name, a.mode)
			if gid := groupID(group, a.group); err == nil && gid != 0 {
				err = unix.Lchown(name, 0, gid)
			}
			if err != nil && err != unix.ENOENT { // gone meanwhile
				return err
			}
		}
	}
	return nil
}

func accessOf(name string, mode fs.FileMode) (access, bool) {
	if mode&fs.ModeDevice == 0 {
		return access{}, false
	}
	if a, ok := devices[name]; ok {
		return a, true
	}
	for _, c := range classes {
		if strings.HasPrefix(name, c.prefix) {
			return c.access, true
		}
	}
	return access{"disk", 0o660}, mode&fs.ModeCharDevice == 0
}

// groupID finds a group in the image's /etc/group; 0 when it is not there.
func groupID(file []byte, name string) int {
	if name == "" {
		return 0
	}
	prefix := []byte(name + ":")
	for line := range bytes.Lines(file) {
		if fields := bytes.Split(line, []byte(":")); bytes.HasPrefix(line, prefix) && len(fields) > 2 {
			id, err := strconv.ParseUint(string(fields[2]), 10, 31)
			if err == nil {
				return int(id)
			}
		}
	}
	return 0
}

// maxGroupFile bounds what is read of the image's /etc/group, in bytes.
const maxGroupFile = 1 << 20

// readInside reads the beginning of a regular file as a process would that has root as its
// root directory. What is not there or is something else is empty.
func readInside(root, name string) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil
	}
	b := make([]byte, min(st.Size, maxGroupFile))
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, nil
	}
	return b[:n], nil
}
