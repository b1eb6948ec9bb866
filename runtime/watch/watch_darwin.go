package watch

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher watches directories.
type Watcher struct {
	queue  int
	wake   [2]int // a pipe, whose end ends Next
	mu     sync.Mutex
	dirs   map[int]string
	at     map[string]int
	closed bool
}

// New makes a watcher of nothing.
func New() (*Watcher, error) {
	w := &Watcher{dirs: map[int]string{}, at: map[string]int{}}
	var err error
	if w.queue, err = unix.Kqueue(); err != nil {
		return nil, fmt.Errorf("watching directories: %w", err)
	}
	unix.CloseOnExec(w.queue)
	if err := unix.Pipe(w.wake[:]); err != nil {
		unix.Close(w.queue)
		return nil, fmt.Errorf("watching directories: %w", err)
	}
	unix.CloseOnExec(w.wake[0])
	unix.CloseOnExec(w.wake[1])
	return w, w.register(w.wake[0], unix.EVFILT_READ, 0)
}

func (w *Watcher) register(fd int, filter int16, flags uint32) error {
	var k unix.Kevent_t
	unix.SetKevent(&k, fd, int(filter), unix.EV_ADD|unix.EV_CLEAR|unix.EV_ENABLE)
	k.Fflags = flags
	_, err := unix.Kevent(w.queue, []unix.Kevent_t{k}, nil, nil)
	return err
}

// Add also watches a directory. It does nothing when it is watched already.
func (w *Watcher) Add(dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.at[dir]; ok || w.closed {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_EVTONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err == nil {
		if err = w.register(fd, unix.EVFILT_VNODE, unix.NOTE_WRITE|unix.NOTE_DELETE|unix.NOTE_RENAME); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, &os.PathError{Op: "open", Path: dir, Err: err})
	}
	w.dirs[fd], w.at[dir] = dir, fd
	return nil
}

// Next waits for changes and calls changed for each: with the directory and the name
// in it, "" for the directory itself or when it is not known which.
func (w *Watcher) Next(changed func(dir, name string)) error {
	var all [32]unix.Kevent_t
	n, err := unix.Kevent(w.queue, nil, all[:], nil)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching directories: %w", err)
	}
	for _, k := range all[:n] {
		fd := int(k.Ident)
		if fd == w.wake[0] {
			w.end()
			return ErrClosed
		}
		w.mu.Lock()
		dir := w.dirs[fd]
		if dir != "" && k.Fflags&(unix.NOTE_DELETE|unix.NOTE_RENAME) != 0 {
			delete(w.dirs, fd)
			delete(w.at, dir)
			unix.Close(fd)
		}
		w.mu.Unlock()
		if dir != "" {
			changed(dir, "")
		}
	}
	return nil
}

// end frees everything. The goroutine that waits in Next calls it.
func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for fd := range w.dirs {
		unix.Close(fd)
	}
	unix.Close(w.queue)
	unix.Close(w.wake[0])
}

// Close ends Next.
func (w *Watcher) Close() error { return unix.Close(w.wake[1]) }
