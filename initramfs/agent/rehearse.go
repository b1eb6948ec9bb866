//go:build linux

package agent

import (
	"io"
	"net"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

const (
	// rehearsalPause is longer than a host takes to save the guest after it was
	// told that it may, mostly.
	rehearsalPause = 5 * time.Millisecond
	// rehearsalLimit is how long a shell may take that has nothing to do.
	rehearsalLimit = time.Second
)

// rehearse runs nothing again and again, from when a snapshot may be taken until
// configured is closed. What then runs in the restored guest, on a CPU that waits
// for the host's word, is the code that the first command will need: an emulator has
// translated much of it by the time that comes. Nothing tells a guest that a
// snapshot of it was taken.
func rehearse(configured <-chan struct{}, nothing func() error) {
	for {
		select {
		case <-configured:
			return
		case <-time.After(rehearsalPause):
		}
		select {
		case <-configured: // meanwhile
			return
		default:
		}
		if nothing() != nil {
			return // not every image has a shell
		}
	}
}

// runNothing has the shell do nothing, in all as the host would, but is not listed.
func (s *Server) runNothing() error {
	p, ended, std, err := s.launch(nothing, unlisted)
	if err != nil {
		return err
	}
	here, host := net.Pipe()
	defer here.Close()
	defer time.AfterFunc(rehearsalLimit, func() { host.Close() }).Stop()
	go func() { _, _ = io.Copy(io.Discard, host) }()
	return attach(p, ended, std, protocol.NewReader(here), protocol.NewWriter(here))
}

func unlisted(_ *protocol.Exec, fork forker) (*process, <-chan syscall.WaitStatus, error) {
	pid, ended, err := fork()
	return &process{pid: pid}, ended, err
}

var nothing = &protocol.Exec{Args: []string{":"}, Shell: true}
