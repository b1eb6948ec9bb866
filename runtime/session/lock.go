package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/flock"
)

// makeDir makes a session's directory and takes its lock, which the kernel
// releases however this process ends.
func makeDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("making the session's directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the session's directory: %w", err)
	}
	lock, err := tryLock(dir)
	if err == nil && lock == nil {
		err = errors.New("it is locked")
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("making the session's directory: %w", err)
	}
	return lock, nil
}

// tryLock takes the lock of a session's directory, or returns nil when its
// supervisor is alive.
func tryLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if busy, err := flock.TryExclusive(f); busy || err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
