//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// stdio is the two ends of a process's standard files.
type stdio struct {
	in, out, err *os.File // ours; with a terminal, in and out are its master and err is nil
	child        []int    // the process's, as plain descriptors: in the runtime's poller each would cost an exec five system calls
	terminal     bool
	closeOnce    sync.Once
}

// openStdio opens what the request asks for and sets it in cmd.
func openStdio(req *protocol.Exec, cmd *command) (*stdio, error) {
	s := &stdio{}
	var err error
	if req.Terminal != nil && !req.Detach {
		err = s.openTerminal(*req.Terminal, cmd)
	} else {
		err = s.openPipes(req.Stdin && !req.Detach, cmd.attr.Sys.Credential)
	}
	if err != nil {
		s.closeChild()
		s.close()
		return nil, failed("opening standard files", err)
	}
	for i := range 3 {
		// A terminal is all three.
		cmd.attr.Files = append(cmd.attr.Files, uintptr(s.child[min(i, len(s.child)-1)]))
	}
	return s, nil
}

// openPipes makes them the user's, who may then open them again by their names in /dev.
func (s *stdio) openPipes(input bool, user *syscall.Credential) error {
	if input {
		if err := s.openPipe(&s.in, 1, user); err != nil {
			return err
		}
	} else {
		null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.child = append(s.child, null)
	}
	return errors.Join(s.openPipe(&s.out, 0, user), s.openPipe(&s.err, 0, user))
}

// openPipe makes a pipe of which end is ours; the other one is the process's next.
func (s *stdio) openPipe(ours **os.File, end int, user *syscall.Credential) error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	s.child = append(s.child, fds[1-end])
	if err := unix.SetNonblock(fds[end], true); err != nil {
		return errors.Join(err, unix.Close(fds[end]))
	}
	*ours = os.NewFile(uintptr(fds[end]), "pipe")
	if user != nil {
		return unix.Fchown(fds[end], int(user.Uid), -1)
	}
	return nil
}

// openTerminal makes the process the leader of a terminal of its own.
func (s *stdio) openTerminal(size protocol.TerminalSize, cmd *command) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	s.in, s.out, s.terminal = master, master, true
	var number int
	if err := control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	}); err != nil {
		return fmt.Errorf("unlocking the terminal: %w", err)
	}
	if err := s.resize(size); err != nil {
		return err
	}
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.child = []int{slave}
	if c := cmd.attr.Sys.Credential; c != nil {
		if err := unix.Fchown(slave, int(c.Uid), -1); err != nil {
			return err
		}
	}
	cmd.attr.Sys.Setctty, cmd.attr.Sys.Ctty = true, 0
	return nil
}

func (s *stdio) resize(size protocol.TerminalSize) error {
	if !s.terminal {
		return fmt.Errorf("%w: a size for a process without a terminal", protocol.ErrMalformed)
	}
	return control(s.out, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
}

// signal sends a signal to the group of a process and, with a terminal, to the group that
// a shell's job control has put in front.
func (s *stdio) signal(pid int, signal syscall.Signal) {
	// Those that have ended need none.
	_ = syscall.Kill(-pid, signal)
	if !s.terminal {
		return
	}
	_ = control(s.out, func(fd int) error {
		front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err == nil && front > 0 && front != pid {
			err = syscall.Kill(-front, signal)
		}
		return err
	})
}

// control calls do with f's descriptor, without making it blocking as
// [os.File.Fd] does.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}

// endInput tells the process that its input has ended.
func (s *stdio) endInput() {
	if s.terminal {
		// The terminal's end-of-file character; the process may be gone.
		_, _ = s.in.Write([]byte{4})
		return
	}
	s.in.Close()
}

func (s *stdio) closeChild() {
	for _, fd := range s.child {
		unix.Close(fd)
	}
	s.child = nil
}

// close may be called more than once.
func (s *stdio) close() {
	s.closeOnce.Do(func() {
		for _, f := range []*os.File{s.in, s.out, s.err} {
			if f != nil {
				f.Close()
			}
		}
	})
}
