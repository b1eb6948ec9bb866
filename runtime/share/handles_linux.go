package share

import (
	"sync"

	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest has open.
type handle struct {
	fd      int
	node    *node // in use
	release func(*node)
	users   int // calls, and the guest; guarded by the table's mutex

	// Of a directory: entries that were read and not yet sent.
	mu      sync.Mutex
	entries []byte
	next    int64 // the offset of the first of them
	buffer  []byte
}

// handles are what the guest has open, by its numbers.
type handles struct {
	mu      sync.Mutex
	byID    map[uint64]*handle
	last    uint64
	maximum int
}

func newHandles(maximum int) *handles {
	return &handles{byID: map[uint64]*handle{}, maximum: maximum}
}

// add takes fd over, also on an error, and the use of the node, but on an error.
func (t *handles) add(fd int, n *node, release func(*node)) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.maximum {
		unix.Close(fd)
		return 0, unix.ENFILE
	}
	t.last++
	t.byID[t.last] = &handle{fd: fd, node: n, release: release, users: 1}
	return t.last, nil
}

// get returns what has a number, which stays open until it is put back.
func (t *handles) get(id uint64) (*handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id]
	if h == nil {
		return nil, unix.EBADF
	}
	h.users++
	return h, nil
}

func (t *handles) put(h *handle) {
	t.mu.Lock()
	h.users--
	last := h.users == 0
	t.mu.Unlock()
	if last {
		unix.Close(h.fd)
		h.release(h.node)
	}
}

// remove closes the handle with a number when its last request is done.
func (t *handles) remove(id uint64) {
	t.mu.Lock()
	h := t.byID[id]
	delete(t.byID, id)
	t.mu.Unlock()
	if h != nil {
		t.put(h)
	}
}

func (t *handles) close() {
	t.mu.Lock()
	all := t.byID
	t.byID = map[uint64]*handle{}
	t.mu.Unlock()
	for _, h := range all {
		t.put(h)
	}
}
