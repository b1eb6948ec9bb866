package transfer

import (
	"errors"
	"fmt"
	"math"
)

// ErrTooMuch is wrapped by the error of a copy that is larger than it may be.
var ErrTooMuch = errors.New("larger than allowed")

const (
	defaultMaxEntries = 4 << 20
	block             = 4 << 10 // what a file system takes for the least
	// maxSparse is how many times the size of what may be written files may
	// claim, in holes.
	maxSparse = 64
)

// budget counts what a copy takes of the receiver's file system. Holes take
// nothing, and are bounded all the same: a file of a petabyte is none that one
// can do something with.
type budget struct {
	most    int64 // bytes; 0 for no bound
	ofFree  bool  // most is a part of what is free, which nobody has asked for
	taken   int64
	claimed int64
	entries int64
	left    int64 // of entries
}

// entry counts one more file.
func (b *budget) entry() error {
	if b.entries++; b.entries > b.left {
		return fmt.Errorf("%w: more than %d files", ErrTooMuch, b.left)
	}
	return nil
}

// take counts bytes that will be written.
func (b *budget) take(n int64) error {
	if n > math.MaxInt64-b.taken {
		n = math.MaxInt64 - b.taken
	}
	if b.taken += n; b.most > 0 && b.taken > b.most {
		if b.ofFree {
			return fmt.Errorf("%w: more than half of what is free there, which is %d bytes; --max-size allows more", ErrTooMuch, b.most)
		}
		return fmt.Errorf("%w: more than %d bytes; --max-size allows more", ErrTooMuch, b.most)
	}
	return b.claim(n)
}

// claim counts bytes of a file, written or not.
func (b *budget) claim(n int64) error {
	if n > math.MaxInt64-b.claimed {
		n = math.MaxInt64 - b.claimed
	}
	b.claimed += n
	if b.most > 0 && b.claimed/maxSparse > b.most {
		return fmt.Errorf("%w: sparse files of more than %d times %d bytes; --max-size allows more", ErrTooMuch, maxSparse, b.most)
	}
	return nil
}

// rounding is what a file of so many bytes takes beside them.
func rounding(n int64) int64 {
	if n == 0 {
		return block
	}
	return (block - n%block) % block
}
