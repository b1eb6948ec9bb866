//go:build linux

package boot

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Sync kills every other process and brings all file systems to disk.
func (s *System) Sync() error {
	if s.beside() {
		unix.Sync()
		return nil // systemd ends the processes, as it knows how
	}
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	unix.Sync()
	for _, m := range slices.Backward(s.mounts) {
		// Detached, since a process that was killed may not be gone yet; what
		// it wrote is on disk by now.
		if err := unix.Unmount(m.Path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", m.Path, err)
		}
	}
	unix.Sync()
	return nil
}

// PowerOff ends the VM in the way that its machine has: a machine without
// power management resets, which its driver takes for the end.
func (s *System) PowerOff() {
	reset := s == nil || s.cmdline[protocol.ParamOff] == protocol.OffReset
	if s != nil && s.beside() {
		// systemd(1): SIGRTMIN+4 powers off, +5 reboots; 34 is the C library's
		// SIGRTMIN.
		signal := syscall.Signal(34 + 4)
		if reset {
			signal++
		}
		_ = syscall.Kill(1, signal)
		select {}
	}
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reset {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	_ = unix.Reboot(how)
	select {} // the kernel is on its way down; PID 1 must not end before it
}
