//go:build unix

// Package flock locks files between processes (flock(2)). A lock ends with the
// process that holds it, however that ends, or with the file's Close.
package flock

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Shared takes a lock that others may share. It waits.
func Shared(f *os.File) error { return lock(f, unix.LOCK_SH) }

// TryShared takes a lock that others may share, or says that somebody holds one for
// itself alone.
func TryShared(f *os.File) (busy bool, err error) {
	err = lock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// TryExclusive takes a lock for this process alone, or says that somebody else
// holds one.
func TryExclusive(f *os.File) (busy bool, err error) {
	err = lock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// Exclusive takes a lock for this process alone. It waits until ctx ends; f is
// closed when it fails.
func Exclusive(ctx context.Context, f *os.File) error {
	locked := make(chan error, 1)
	go func() { locked <- lock(f, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		go func() {
			<-locked // a lock that is waited for cannot be given up
			f.Close()
		}()
		return context.Cause(ctx)
	}
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Names says whether path still names f. A lock file that was removed or replaced
// between its opening and its locking locks nothing.
func Names(path string, f *os.File) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}
