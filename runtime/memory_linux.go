package runtime

import "golang.org/x/sys/unix"

// hostMemory is the host's memory and swap together, in bytes: its kernel gives no
// process more than that.
func hostMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return (int64(info.Totalram) + int64(info.Totalswap)) * int64(info.Unit), nil
}
