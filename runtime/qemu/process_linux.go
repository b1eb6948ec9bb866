package qemu

import (
	"os/exec"
	"runtime"
	"syscall"
)

// start starts QEMU so that the kernel kills it when this process ends,
// however it ends. The kernel ties that to the thread that forked: a thread is
// kept for it until QEMU has ended.
func (p *process) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.wait(cmd)
		}
	}()
	return <-started
}

func newSocketPair() ([2]int, error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}
