package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const events = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// Watcher watches directories.
type Watcher struct {
	file *os.File
	mu   sync.Mutex
	dirs map[int32]string
	at   map[string]int32
}

// New makes a watcher of nothing.
func New() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching directories: %w", err)
	}
	return &Watcher{file: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, at: map[string]int32{}}, nil
}

// Add also watches a directory. It does nothing when it is watched already.
func (w *Watcher) Add(dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.at[dir]; ok {
		return nil
	}
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var wd int
	var addErr error
	if err := raw.Control(func(fd uintptr) { wd, addErr = unix.InotifyAddWatch(int(fd), dir, events) }); err != nil {
		return err
	}
	if addErr != nil {
		return fmt.Errorf("watching %s: %w", dir, addErr)
	}
	w.dirs[int32(wd)], w.at[dir] = dir, int32(wd)
	return nil
}

// Next waits for changes and calls changed for each: with the directory and the name
// in it, "" for the directory itself or when it is not known which.
func (w *Watcher) Next(changed func(dir, name string)) error {
	var buf [16 << 10]byte
	n, err := w.file.Read(buf[:])
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("watching directories: %w", err)
	}
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		length := min(int(binary.NativeEndian.Uint32(b[12:])), len(b)-unix.SizeofInotifyEvent)
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length]), "\x00")
		b = b[unix.SizeofInotifyEvent+length:]
		switch dir := w.dir(wd, mask); {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.all(changed)
		case dir != "":
			changed(dir, name)
		}
	}
	return nil
}

// dir is the directory of an event; one that has gone is watched no more.
func (w *Watcher) dir(wd int32, mask uint32) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir := w.dirs[wd]
	if mask&(unix.IN_IGNORED|unix.IN_MOVE_SELF) != 0 {
		delete(w.dirs, wd)
		if w.at[dir] == wd {
			delete(w.at, dir)
		}
	}
	return dir
}

func (w *Watcher) all(changed func(dir, name string)) {
	w.mu.Lock()
	dirs := make([]string, 0, len(w.at))
	for dir := range w.at {
		dirs = append(dirs, dir)
	}
	w.mu.Unlock()
	for _, dir := range dirs {
		changed(dir, "")
	}
}

// Close ends Next.
func (w *Watcher) Close() error { return w.file.Close() }
