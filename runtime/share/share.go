// Package share serves a directory of the host to a guest, which mounts it as a
// bind mount would be: the guest's agent passes on the messages that its kernel's
// FUSE has for a file system, and the answers.
//
// The guest is hostile, and so is every message. A name is one name, below a
// directory that the server has open, and no link is followed, so that there is no
// way out of the directory. What carries requests out are threads that the kernel
// confines to the directory, too, with no capability and as the directory's owner
// where root started the VM: see package confine. Files, requests and messages are
// bounded. What is neither a file nor a directory is not opened: FIFOs, sockets and
// devices are the guest's kernel's, and locks, too.
package share

import (
	"errors"
	"time"
)

// Options are how a directory is served.
type Options struct {
	ReadOnly bool
	// Among is how many servers there are in this process: together they may have a
	// quarter of its descriptors. 0 is 1.
	Among int
}

// ErrUnsupported is returned where this system has no server.
var ErrUnsupported = errors.New("serving a directory is not possible on this system")

const (
	// maxData is the longest piece of a file in one message, in bytes.
	maxData = 1 << 20
	// maxMessage is the longest message: a piece of a file, and what is before it.
	maxMessage = maxData + 4<<10
	// maxWorkers is how many requests are carried out at a time.
	maxWorkers = 16
	// maxNodes is how many files and directories the guest may know at a time.
	maxNodes = 1 << 19
	// maxDepth is how many directories are looked up to find one again.
	maxDepth = 4096
	// validity is how long the guest takes what it was told of a file for true. A
	// tree is walked through at once; what the host changes is seen at once, too.
	validity = 20 * time.Millisecond
)
