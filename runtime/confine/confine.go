// Package confine takes away from a process, before it runs, what it does not
// need: the file system and the network (Landlock), capabilities, and, where it
// would be root's, its user.
//
// These belong to threads on Linux, and a new process has those of the thread
// that made it. So a thread is confined, makes the process, and ends: the
// process needs no helper, and the caller's other threads stay as they are. What
// such a thread does itself is confined as well, see package share.
package confine

import (
	"fmt"
	"os"
)

// Processes that root starts get users of their own, of no account: FirstUser and
// the Users-1 after it, each with the group of the same number. No two that run at
// a time have the same one.
const (
	FirstUser = 0x6c756d69 // 1819635049
	Users     = 1 << 16
)

// Group is one more group of those users, and no user's own: what they all may
// open again is its.
const Group = FirstUser - 1

// Values of Policy.User beside the number of a user.
const (
	KeepUser = 0  // works on its user's files
	OwnUser  = -1 // of those from FirstUser on
)

// Policy is what a process may still do. With no Landlock in the kernel it may
// open whatever its user may.
type Policy struct {
	Read  []string // files, and directories with all below: read and run; those that are not there do not matter
	Write []string // as Read, and change
	// User is who it is where it would be root: KeepUser, OwnUser, or the user of
	// that number.
	User int
	// Groups of root's process, all of them but its own.
	Groups []int
	// Group is its own where User names one; 0: that of the same number.
	Group int
	// Thread: no process is made, the thread itself works on files. Its umask is its
	// own, and 0: modes are said in full. Namespaces it does not need.
	Thread bool
	// KeepPrivileges: it keeps user and capabilities, and may call the kernel for
	// all that they allow, since it starts processes that may not.
	KeepPrivileges bool
	// Network: it makes TCP connections.
	Network bool
}

// Opened is the path, for a Policy, of a file that this process has open and the
// new one opens again.
func Opened(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
