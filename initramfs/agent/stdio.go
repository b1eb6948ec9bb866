//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// stdio is the two ends of a process's standard files.
type stdio struct {
	in, out, err *os.File // ours; with a terminal, in and out are its master and err is nil
	child        []*os.File
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
		err = s.openPipes(req.Stdin && !req.Detach)
	}
	if err != nil {
		s.closeChild()
		s.close()
		return nil, failed("opening standard files", err)
	}
	for _, f := range s.child {
		cmd.attr.Files = append(cmd.attr.Files, f.Fd())
	}
	return s, nil
}

func (s *stdio) openPipes(input bool) error {
	s.child = make([]*os.File, 3)
	var inErr, outErr, errErr error
	if input {
		s.child[0], s.in, inErr = os.Pipe()
	} else {
		s.child[0], inErr = os.Open(os.DevNull)
	}
	s.out, s.child[1], outErr = os.Pipe()
	s.err, s.child[2], errErr = os.Pipe()
	return errors.Join(inErr, outErr, errErr)
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
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	s.child = []*os.File{slave, slave, slave}
	if c := cmd.attr.Sys.Credential; c != nil {
		if err := slave.Chown(int(c.Uid), -1); err != nil {
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
	for _, f := range s.child {
		if f != nil {
			f.Close()
		}
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
