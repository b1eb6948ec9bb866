package runtime

import "golang.org/x/sys/unix"

// hostMemory is how much memory this host has, and swap, in bytes: more than that
// its kernel gives nobody.
func hostMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return (int64(info.Totalram) + int64(info.Totalswap)) * int64(info.Unit), nil
}
