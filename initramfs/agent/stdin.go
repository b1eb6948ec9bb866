//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// stdin holds what the host has sent and the process has not yet read, at most
// protocol.StdinWindow bytes. It keeps the reader of frames from ever waiting
// for the process: a host that vanishes is noticed whatever the process does.
type stdin struct {
	mu     sync.Mutex
	more   sync.Cond
	queue  []byte
	owed   int  // bytes taken and not yet credited
	closed bool // no more will come, or nobody reads
}

func newStdin() *stdin {
	s := &stdin{}
	s.more.L = &s.mu
	return s
}

func (s *stdin) put(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue)+s.owed+len(p) > protocol.StdinWindow {
		return fmt.Errorf("%w: standard input overran its window", protocol.ErrMalformed)
	}
	if !s.closed {
		s.queue = append(s.queue, p...)
		s.more.Signal()
	}
	return nil
}

// close ends the input; what is queued is still delivered.
func (s *stdin) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.more.Signal()
}

func (s *stdin) take(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 {
		if s.closed {
			return 0, io.EOF
		}
		s.more.Wait()
	}
	n := copy(p, s.queue)
	s.queue = s.queue[:copy(s.queue, s.queue[n:])]
	s.owed += n
	return n, nil
}

// credit returns how much to credit to the host: little at a time would be a
// frame for every read.
func (s *stdin) credit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.owed
	if n < protocol.StdinWindow/4 {
		return 0
	}
	s.owed = 0
	return n
}

// feed writes the input to the process until it ends, which end then tells the
// process, or the process closes its side.
func (s *stdin) feed(f *os.File, w *protocol.Writer, end func()) {
	defer end()
	defer s.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := s.take(buf)
		if err != nil {
			return
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return // the process reads no more: no credit, the host stops sending
		}
		if n := s.credit(); n > 0 {
			if err := w.Credit(n); err != nil {
				return
			}
		}
	}
}

var errCancelled = errors.New("cancelled by the host")
