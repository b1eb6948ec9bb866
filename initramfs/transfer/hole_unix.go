//go:build unix

package transfer

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// minHole is the least length of a hole that is looked for, in bytes: asking
// for less costs more than sending it.
const minHole = 64 << 10

// holeAt returns the length of the hole at an offset, which is where f stands, at
// most to size; 0 when there is data, or the file system cannot tell. f stands
// behind the hole then.
func holeAt(f *os.File, at, size int64) (int64, error) {
	if at%minHole != 0 || size-at < minHole {
		return 0, nil
	}
	data, err := f.Seek(at, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		data = size // no data any more
	case err != nil:
		return 0, nil //nolint:nilerr // it cannot tell
	}
	if data == at {
		return 0, nil
	}
	end := min(data, size)
	_, err = f.Seek(end, io.SeekStart)
	return end - at, err
}
