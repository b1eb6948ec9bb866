//go:build !linux

package tracepoint

import (
	"errors"
	"fmt"
	"runtime"
)

// Open fails: this is not Linux.
func Open(event, _ string) (*Counter, error) {
	return nil, fmt.Errorf("counting %s on %s: %w; it needs Linux", event, runtime.GOOS, errors.ErrUnsupported)
}

// Counter counts nothing here.
type Counter struct{}

// Read is never called.
func (*Counter) Read() (uint64, error) { return 0, errors.ErrUnsupported }

// Close is never called.
func (*Counter) Close() error { return nil }

// Adopt fails: this is not Linux.
func Adopt() error { return errors.ErrUnsupported }

// Bury does nothing here.
func Bury() {}
