package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// CacheDir is where drivers remember what they find out about the host; "" for a
// host that has no place which is this user's alone.
func CacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "lumina")
	}
	// A user without a home gets this directory, if no other user has taken it.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("lumina-%d", os.Getuid()))
	_ = os.Mkdir(dir, 0o700)
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return ""
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() {
		return ""
	}
	return dir
}
