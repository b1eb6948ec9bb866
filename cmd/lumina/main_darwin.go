package main

import (
	"os"
	"runtime"
)

// macOS shows windows from a process's first thread only, and that is main's until
// it has begun: a desktop's is shown by the goroutine that boots it, which is
// main's. Other commands go without, since a goroutine with a thread of its own
// is slower to wake.
func init() {
	if len(os.Args) > 1 && (os.Args[1] == "desktop" || os.Args[1] == superviseDesktopCommand) {
		runtime.LockOSThread()
	}
}
