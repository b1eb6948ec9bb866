package vm

import (
	"strings"
	"sync"
)

// Tail keeps the end of what is written to it, however much that is: a guest's
// console for one. It may be used by several goroutines.
type Tail struct {
	mu   sync.Mutex
	size int
	buf  []byte // at most 2*size
}

// NewTail makes a Tail that keeps size bytes.
func NewTail(size int) *Tail { return &Tail{size: size} }

// Write is part of [io.Writer]; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > t.size {
		p = p[len(p)-t.size:]
	}
	if len(t.buf)+len(p) > 2*t.size {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-min(len(t.buf), t.size):]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-t.size):])
}

// Text is what was kept as text: in UTF-8, and without the carriage returns of a
// serial console.
func (t *Tail) Text() string {
	return strings.ToValidUTF8(strings.ReplaceAll(t.String(), "\r", ""), "\uFFFD")
}
