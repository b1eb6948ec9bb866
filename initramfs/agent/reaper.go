//go:build linux

package agent

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper starts processes and collects every child that ends, its own and the
// orphans that the kernel gives to PID 1. Nothing else in the process may wait
// for children.
type Reaper struct {
	// mu is held from the fork to the entry in waiting, so that a child that
	// ends at once is not taken for an orphan.
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

// NewReaper starts collecting.
func NewReaper() *Reaper {
	r := &Reaper{waiting: make(map[int]chan syscall.WaitStatus)}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			r.reap()
		}
	}()
	return r
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
	r.waiting[pid] = c
	return pid, c, nil
}

func (r *Reaper) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
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
