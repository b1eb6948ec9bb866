// Package watch tells when something in directories changes, without asking again and
// again: by inotify(7) on Linux, by kqueue(2) on macOS.
//
// A change is that an entry is made, renamed or removed. On Linux it is also that
// somebody closes a file that was open for writing: a lock file is one, so that the
// end of a process that holds it is a change, however it ended. That a file grows is
// none: the disks of VMs would never be silent.
package watch

import "errors"

// ErrClosed is returned by Next once Close was called.
var ErrClosed = errors.New("the watcher is closed")
