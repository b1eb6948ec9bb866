package qemu

import "sync"

// tail keeps the end of what is written to it, however much that is.
type tail struct {
	mu   sync.Mutex
	size int
	buf  []byte // at most 2*size
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > t.size {
		p = p[len(p)-t.size:]
	}
	if len(t.buf)+len(p) > 2*t.size {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.size:]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-t.size):])
}
