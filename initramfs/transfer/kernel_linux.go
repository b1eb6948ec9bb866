package transfer

import (
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernels are the file systems that show what the kernel knows.
var kernels = []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC}

func isKernels(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var st unix.Statfs_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstatfs(int(fd), &st) }); err != nil {
		return false
	}
	return statErr == nil && slices.Contains(kernels, int64(st.Type))
}

// maxOfKernel bounds what is read of a file of the kernel's own, in bytes: some, such as
// /proc/self/pagemap, go on for as long as there are addresses.
const maxOfKernel = 16 << 20

var errEndless = fmt.Errorf("it has more than %d MiB and is in a file system of the kernel, such as /proc", maxOfKernel>>20)

// kernelFile reads a file of the kernel's own: what is there now. Of some, such as
// /proc/kmsg, a read waits until there is more.
type kernelFile struct {
	raw  syscall.RawConn
	left int
}

func readKernels(f *os.File) (io.Reader, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) { _ = syscall.SetNonblock(int(fd), true) })
	return &kernelFile{raw, maxOfKernel}, err
}

func (k *kernelFile) Read(p []byte) (n int, err error) {
	if k.left == 0 {
		return 0, errEndless
	}
	// true: what Go would do about EAGAIN is to wait.
	if rawErr := k.raw.Read(func(fd uintptr) bool {
		for n, err = syscall.Read(int(fd), p); err == syscall.EINTR; {
			n, err = syscall.Read(int(fd), p)
		}
		return true
	}); rawErr != nil {
		return 0, rawErr
	}
	switch {
	case err == syscall.EAGAIN, err == nil && n == 0:
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	n = min(n, k.left)
	k.left -= n
	return n, nil
}
