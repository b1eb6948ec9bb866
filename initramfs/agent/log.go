//go:build linux

package agent

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// maxLog bounds the kept output of one detached process, in bytes: a server
// may run for weeks, and the disk is the guest's own.
const maxLog = 1 << 30

// log keeps the output of a detached process, as the frames that OpLogs sends.
// The file has no name: no process of the guest finds it.
type log struct {
	mu     sync.Mutex
	change sync.Cond
	file   *os.File
	size   int64
	ended  bool
	full   bool
}

func newLog(dir string) (*log, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failed("making a log", err)
	}
	l := &log{file: f}
	l.change.L = &l.mu
	return l, nil
}

// Write appends a frame. What does not fit is dropped: the process goes on.
func (l *log) Write(frame []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = l.full || l.size+int64(len(frame)) > maxLog; l.full {
		return len(frame), nil
	}
	if _, err := l.file.WriteAt(frame, l.size); err != nil {
		l.full = true
		return len(frame), nil
	}
	l.size += int64(len(frame))
	l.change.Broadcast()
	return len(frame), nil
}

// close tells the followers that no more comes.
func (l *log) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.change.Broadcast()
}

// remove frees the file; followers get an error.
func (l *log) remove() {
	l.close()
	l.file.Close()
}

// wait returns the size once it is beyond offset, and false at the end.
func (l *log) wait(offset int64, follow bool, gone *bool) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for follow && l.size <= offset && !l.ended && !*gone {
		l.change.Wait()
	}
	return l.size, l.size > offset && !*gone
}

// logs sends the output of a detached process.
func (s *Server) logs(req *protocol.Logs, r *protocol.Reader, w *protocol.Writer) error {
	p, err := s.processes.find(req.ID)
	if err != nil {
		return err
	}
	if !p.detached {
		return notFound("process %q is not detached: its output goes to who started it", req.ID)
	}
	gone := false
	go func() {
		_, _, _ = r.Next() // the host sends nothing: this is the end of the stream
		p.log.mu.Lock()
		gone = true
		p.log.mu.Unlock()
		p.log.change.Broadcast()
	}()
	for offset := int64(0); ; {
		size, more := p.log.wait(offset, req.Follow, &gone)
		if !more {
			return w.Message(protocol.FrameReply, nil)
		}
		if err := w.Raw(io.NewSectionReader(p.log.file, offset, size-offset)); err != nil {
			return errors.Join(errCancelled, err)
		}
		offset = size
	}
}
