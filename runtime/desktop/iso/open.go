package iso

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrNoFile is wrapped when what a path names is not a file.
var ErrNoFile = errors.New("want a file")

// Open opens the file of an image or a disk. It does not wait: a FIFO without a writer is
// refused.
func Open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkMode(name, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkMode(name string, mode fs.FileMode) error {
	is := "a device"
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		is = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		is = "a pipe"
	}
	return fmt.Errorf("%q is %s: %w", name, is, ErrNoFile)
}
