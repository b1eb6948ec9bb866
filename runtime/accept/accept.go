// Package accept is the loop that takes connections from a listener. An error of
// accept(2), such as too many open files, ends no loop: it passes, while a server
// that has stopped listening does not come back.
package accept

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// The pause after an error grows from the first to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// Each calls serve for each connection, in a goroutine of its own that closes the
// connection then, until l is closed.
func Each(l net.Listener, serve func(net.Conn)) {
	Reserved(l, 0, func(c net.Conn, _ bool) { serve(c) })
}

// Reserved is Each with so many descriptors in reserve: when the process has no
// other left, a connection still comes through. serve is then told that they are
// scarce, and should take only what frees some.
func Reserved(l net.Listener, spare int, serve func(c net.Conn, scarce bool)) {
	r := &reserve{want: spare}
	r.fill()
	defer r.empty()
	pause, scarce := firstPause, false
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			go func(scarce bool) {
				defer r.fill()
				defer c.Close()
				serve(c, scarce)
			}(scarce)
			pause, scarce = firstPause, false
		case errors.Is(err, net.ErrClosed):
			return
		case exhausted(err) && r.take():
			scarce = true
		default:
			// The state of the process or the host is wrong. It changes without
			// telling; to ask again at once would take a CPU.
			time.Sleep(pause)
			pause = min(2*pause, lastPause)
		}
	}
}

func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// reserve is files that are open for nothing but to be closed when a descriptor is
// needed.
type reserve struct {
	want  int
	mu    sync.Mutex
	files []*os.File
}

// fill opens what is missing, as far as there are descriptors.
func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.files) < r.want {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return // the next connection that ends tries again
		}
		r.files = append(r.files, f)
	}
}

// take frees one descriptor.
func (r *reserve) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return false
	}
	last := len(r.files) - 1
	r.files[last].Close()
	r.files = r.files[:last]
	return true
}

func (r *reserve) empty() {
	r.mu.Lock()
	r.want = 0
	r.mu.Unlock()
	for r.take() {
	}
}
