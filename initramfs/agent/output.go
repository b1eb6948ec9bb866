//go:build linux

package agent

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// frames are buffers of one data frame. A pump holds one only while it has
// data, so that a thousand silent processes hold none.
var frames = sync.Pool{New: func() any {
	b := make([]byte, protocol.HeaderSize+protocol.MaxData)
	return &b
}}

// pump sends what a process writes to one of its outputs.
type pump struct {
	file *os.File // our, non-blocking end of the pipe
	kind protocol.FrameType
	w    *protocol.Writer
	done chan struct{}
}

func startPump(file *os.File, kind protocol.FrameType, w *protocol.Writer) *pump {
	p := &pump{file: file, kind: kind, w: w, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for p.once(true) {
		}
	}()
	return p
}

func startPumps(std *stdio, w *protocol.Writer) []*pump {
	pumps := []*pump{startPump(std.out, protocol.FrameStdout, w)}
	if std.err != nil {
		pumps = append(pumps, startPump(std.err, protocol.FrameStderr, w))
	}
	return pumps
}

// finish is called when the process has ended: what it wrote is in the pipe
// by now, and other holders of the pipe (its background children) must not
// hold up the exit.
func (p *pump) finish() {
	_ = p.file.SetReadDeadline(time.Unix(1, 0))
	<-p.done
	_ = p.file.SetReadDeadline(time.Time{})
	for p.once(false) {
	}
}

// once reads and sends one frame. It returns false at the end of the output
// and, unless told to wait, when there is nothing to read.
func (p *pump) once(wait bool) bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	var frame *[]byte
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		frame = frames.Get().(*[]byte)
		for {
			n, readErr = syscall.Read(int(fd), (*frame)[protocol.HeaderSize:])
			if readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN && wait {
			frames.Put(frame)
			frame = nil
			return false
		}
		return true
	})
	if frame != nil {
		defer frames.Put(frame)
	}
	if err != nil || readErr != nil || n <= 0 {
		return false
	}
	return p.w.Data(p.kind, (*frame)[:protocol.HeaderSize+n]) == nil
}
