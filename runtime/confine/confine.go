// Package confine takes away from a process, before it runs, what it does not
// need: the file system and the network (Landlock), capabilities, and, where it
// would be root's, its user.
//
// These belong to threads on Linux, and a new process has those of the thread
// that made it. So a thread is confined, makes the process, and ends: the
// process needs no helper, and the caller's other threads stay as they are.
package confine

import (
	"fmt"
	"os"
)

// User is the user and the group that a process gets in place of root: of no
// account, and the same for all processes, which Landlock keeps apart.
const User = 0x6c756d69

// Policy is what a process may still do. With no Landlock in the kernel it may
// open whatever its user may.
type Policy struct {
	Read  []string // files, and directories with all below: read and run; those that are not there do not matter
	Write []string // as Read, and change
	// Groups of its own that it keeps where it is not root any more.
	Groups []int
	// KeepUser: it works on its user's files.
	KeepUser bool
	// KeepPrivileges: it keeps user and capabilities, since it starts processes
	// that do not.
	KeepPrivileges bool
	// Network: it makes TCP connections.
	Network bool
}

// Opened is the path, for a Policy, of a file that this process has open and the
// new one opens again.
func Opened(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
