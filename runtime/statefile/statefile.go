//go:build unix

// Package statefile reads files of the state directory. What is there may have been
// damaged, or put there by another user: a FIFO without a writer, a directory, a link to
// elsewhere, a file without an end. The package does not wait for the first, follow a link,
// or read more than its limit.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrDamaged is wrapped when what has the name is not a file that Lumina writes.
var ErrDamaged = errors.New("damaged")

// flags: a FIFO does not wait for its other end, a link is not followed.
const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW

// Open opens a regular file for reading.
func Open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, flags, 0)
	return check(f, filepath.Base(name), err)
}

// OpenIn opens a regular file below a directory for reading.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	// A link is found out first: os.Root follows those that stay within.
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, notRegular(name, info.Mode())
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if f, err = check(f, name, err); err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(info, now) {
		err = fmt.Errorf("%s is %w: it was replaced", name, ErrDamaged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Create opens a regular file for reading and writing, and makes it when it is not there.
func Create(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.EISDIR) {
		return nil, notRegular(filepath.Base(name), fs.ModeDir)
	}
	return check(f, filepath.Base(name), err)
}

// CreateLock is Create for a file that only holds a lock. What has its name and is no
// file is nobody's lock: it is removed.
func CreateLock(name string) (*os.File, error) {
	f, err := Create(name)
	if !errors.Is(err, ErrDamaged) {
		return f, err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return Create(name)
}

// Replace writes a file that takes the place of what has its name. It need not outlive
// a power failure.
func Replace(name string, content []byte) error {
	fresh := name + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, name)
}

// OpenDir opens a directory: a FIFO in its place is not waited for.
func OpenDir(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// OpenRoot is os.OpenRoot, which waits for a FIFO.
func OpenRoot(name string) (*os.Root, error) {
	dir, err := OpenDir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return os.OpenRoot(name)
}

func check(f *os.File, name string, err error) (*os.File, error) {
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, notRegular(name, fs.ModeSymlink)
	case errors.Is(err, unix.ENXIO):
		return nil, notRegular(name, fs.ModeSocket)
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(name, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func notRegular(name string, mode fs.FileMode) error {
	what := "a device"
	switch {
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeSymlink != 0:
		what = "a link"
	case mode&fs.ModeNamedPipe != 0:
		what = "a FIFO"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	return fmt.Errorf("%s is %w: it is %s, not a file", name, ErrDamaged, what)
}

// Read reads a regular file of at most limit bytes.
func Read(name string, limit int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

// ReadAll reads an open file of at most limit bytes.
func ReadAll(f *os.File, limit int64) ([]byte, error) {
	size := limit
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	name := filepath.Base(f.Name())
	b := make([]byte, min(size, limit)+1) // one more shows what is longer
	n, err := io.ReadFull(f, b)
	switch {
	case err == nil && int64(n) > limit:
		return nil, fmt.Errorf("%s is %w: it is longer than %d bytes", name, ErrDamaged, limit)
	case err == nil: // it grew meanwhile
		rest, err := io.ReadAll(io.LimitReader(f, limit-int64(n)+1))
		if int64(n+len(rest)) > limit {
			return nil, fmt.Errorf("%s is %w: it is longer than %d bytes", name, ErrDamaged, limit)
		}
		return append(b, rest...), err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return b[:n], nil
	}
	return nil, fmt.Errorf("reading %s: %w", name, err)
}
