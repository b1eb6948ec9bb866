//go:build linux

package boot

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// likeDirectory gives a directory the mode, owner, extended attributes and time
// of another.
func likeDirectory(dir, other string) error {
	var st unix.Stat_t
	if err := unix.Stat(other, &st); err != nil {
		return err
	}
	from, err := os.Open(other)
	if err != nil {
		return err
	}
	defer from.Close()
	records, _, err := readXattrs(from)
	if err != nil {
		return err
	}
	for record, value := range records {
		name := strings.TrimPrefix(record, xattrRecord)
		if strings.HasPrefix(name, overlayXattr) {
			name = overlayXattr + "overlay." + strings.TrimPrefix(name, overlayXattr) // content, not the overlay's own
		}
		if err := unix.Setxattr(dir, name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if err := errors.Join(unix.Chown(dir, int(st.Uid), int(st.Gid)), unix.Chmod(dir, st.Mode&0o7777)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, 0)
}
