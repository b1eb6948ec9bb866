//go:build linux

package boot

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// shares are the directories that the host serves, by their tags: /dev/fuse, opened for
// each.
type shares struct {
	mu     sync.Mutex
	opened map[string]chan *os.File
}

// of is where what is opened for a tag comes, once.
func (s *shares) of(tag string) chan *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.opened[tag]
	if c == nil {
		if s.opened == nil {
			s.opened = map[string]chan *os.File{}
		}
		c = make(chan *os.File, 1)
		s.opened[tag] = c
	}
	return c
}

// mount mounts a directory. Who looks into it waits until the host serves it.
func (s *shares) mount(m protocol.Mount, flags uintptr) error {
	// Not to block: what waits for a message ends when it is closed.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/fuse: %w", err)
	}
	// Every user of the guest's may use it, by the modes and owners of its files.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd)
	if err := (mount{m.Share, m.Path, "fuse.lumina", flags | unix.MS_NOSUID | unix.MS_NODEV, options}).apply(); err != nil {
		unix.Close(fd)
		return fmt.Errorf("mounting the share: %w", err)
	}
	s.of(m.Share) <- os.NewFile(uintptr(fd), "/dev/fuse") // it can be waited for from now on
	return nil
}

// Share is part of [agent.System].
func (s *System) Share(tag string) (io.ReadWriteCloser, error) { return <-s.shares.of(tag), nil }
