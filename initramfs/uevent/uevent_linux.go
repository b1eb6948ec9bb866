// Package uevent waits for devices: the kernel finds them while the guest boots.
package uevent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Wait looks again after each of the kernel's device events, until what is
// looked for is found or looking fails. A limit of 0 is none.
func Wait(limit time.Duration, look func() (found bool, err error)) error {
	// Listen first: what appears after the look is reported.
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("listening for device events: %w", err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("listening for device events: %w", err)
	}
	deadline := time.Now().Add(limit)
	event := make([]byte, 16<<10)
	for {
		if found, err := look(); found || err != nil {
			return err
		}
		wait := -1
		if limit > 0 {
			wait = max(int(time.Until(deadline).Milliseconds()), 0)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(events), Events: unix.POLLIN}}, wait)
		if err == nil && n == 0 {
			return fmt.Errorf("no such device after %v", limit)
		}
		if err == nil {
			_, err = unix.Read(events, event)
		}
		if err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			return fmt.Errorf("reading device events: %w", err)
		}
	}
}
