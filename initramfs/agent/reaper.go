//go:build linux

package agent

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper starts processes and collects every child that ends, its own and the
// orphans that the kernel gives to PID 1. Nothing else in the process may wait
// for children.
type Reaper struct {
	// mu is held from the fork to the entry in waiting, so that a child that
	// ends at once is not taken for an orphan.
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
	started chan struct{} // capacity 1: there may be children
	own     bool          // it waits for its own children only
}

// NewReaper starts collecting. A thread waits for the children: a signal for
// each of them would be delivered, handled and passed on by the Go runtime.
func NewReaper() *Reaper {
	r := &Reaper{waiting: make(map[int]chan syscall.WaitStatus), started: make(chan struct{}, 1)}
	ignoreSIGCHLD()
	go func() {
		for range r.started {
			r.reap()
		}
	}()
	return r
}

// NewOwnReaper is for a process that has children of others: it collects what it
// starts itself.
func NewOwnReaper() *Reaper { return &Reaper{own: true} }

// ignoreSIGCHLD takes the Go runtime's handler away. The default action ignores
// the signal; children remain to be waited for, as they would not with SIG_IGN.
func ignoreSIGCHLD() {
	var byDefault [32]byte // struct sigaction, with a mask of 8 bytes
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
}

// Start forks and executes; the channel gives the process's end, once.
func (r *Reaper) Start(path string, args []string, attr *syscall.ProcAttr) (pid int, ended <-chan syscall.WaitStatus, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err = syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, nil, err
	}
	c := make(chan syscall.WaitStatus, 1)
	if r.own {
		go func() {
			var status syscall.WaitStatus
			for {
				if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
					break
				}
			}
			c <- status
		}()
		return pid, c, nil
	}
	r.waiting[pid] = c
	select {
	case r.started <- struct{}{}:
	default:
	}
	return pid, c, nil
}

// startInside is Start in a directory that the process's user may not enter: the agent
// may, as container runtimes do it.
func (r *Reaper) startInside(path string, args []string, attr *syscall.ProcAttr) (pid int, ended <-chan syscall.WaitStatus, err error) {
	started := make(chan struct{})
	go func() {
		defer close(started)
		// Never unlocked: the thread has a directory of its own from now on, and
		// ends with this function.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Chdir(attr.Dir); err != nil {
			return
		}
		here := *attr
		here.Dir = ""
		pid, ended, err = r.Start(path, args, &here)
	}()
	<-started
	return pid, ended, err
}

// reap collects until there are no children. Orphans descend from children.
func (r *Reaper) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return
		}
		r.mu.Lock()
		if c, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			c <- status
		}
		r.mu.Unlock()
	}
}
