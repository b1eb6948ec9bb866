package uncompress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// newXZ reads a stream of xz. Each of its blocks asks for a dictionary of its own,
// also behind others and in streams that follow: one that is too large is found
// before the reader sees it, which would take the memory.
func newXZ(r io.Reader) (io.ReadCloser, error) {
	p := &xzParts{r: r, buf: make([]byte, 32<<10)}
	next, stop := iter.Pull2(p.all)
	x, err := xz.NewReader(&pulled{next: next})
	if err != nil {
		stop()
		return nil, err
	}
	return &xzReader{x, stop}, nil
}

type xzReader struct {
	io.Reader
	stop func()
}

func (x *xzReader) Close() error {
	x.stop()
	return nil
}

// pulled reads what comes piece by piece.
type pulled struct {
	next func() ([]byte, error, bool)
	rest []byte
}

func (p *pulled) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		piece, err, ok := p.next()
		if !ok {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
		p.rest = piece
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// xzParts passes a stream on by its parts (the .xz file format 1.2.0, 2 and 3, and
// LZMA2's chunks). What it does not know, or what is cut off, is for the reader to say.
type xzParts struct {
	r     io.Reader
	buf   []byte
	yield func([]byte, error) bool
}

// all yields pieces, each good until the next, or an error.
func (p *xzParts) all(yield func([]byte, error) bool) {
	p.yield = yield
	for p.stream() {
	}
}

// read reads a part. Of one that is cut off it passes on what there is.
func (p *xzParts) read(n int) ([]byte, bool) {
	got, err := io.ReadFull(p.r, p.buf[:n])
	switch {
	case err == nil:
		return p.buf[:n], true
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		_ = p.yield(p.buf[:got], nil)
	default:
		_ = p.yield(nil, err)
	}
	return nil, false
}

// pass passes on the next n bytes, which are in p.buf then when they fit.
func (p *xzParts) pass(n int) bool {
	for n > 0 {
		b, ok := p.read(min(n, len(p.buf)))
		if !ok || !p.yield(b, nil) {
			return false
		}
		n -= len(b)
	}
	return true
}

// checkSizes are the lengths of what follows each block, by the stream's flags.
var checkSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

// stream passes on a stream, or padding between two.
func (p *xzParts) stream() bool {
	if !p.pass(4) {
		return false
	}
	if bytes.Equal(p.buf[:4], make([]byte, 4)) {
		return true
	}
	if !p.pass(8) {
		return false
	}
	check := checkSizes[p.buf[3]&15]
	for {
		first, ok := p.read(1)
		if !ok {
			return false
		}
		if first[0] == 0 {
			return p.yield(first, nil) && p.index()
		}
		if !p.block(int(first[0]), check) {
			return false
		}
	}
}

// block passes on a block whose header begins with the byte first.
func (p *xzParts) block(first, check int) bool {
	b, ok := p.read((first+1)*4 - 1)
	if !ok {
		return false
	}
	header := append([]byte{byte(first)}, b...)
	if err := checkXZ(header); err != nil {
		_ = p.yield(nil, err)
		return false
	}
	if !p.yield(header, nil) {
		return false
	}
	for size := 0; ; {
		if !p.pass(1) {
			return false
		}
		size++
		data, control := 0, p.buf[0]
		switch {
		case control == 0: // the end
			return p.pass((4-size%4)%4 + check)
		case control <= 2: // not compressed
			if !p.pass(2) {
				return false
			}
			size += 2
			data = int(binary.BigEndian.Uint16(p.buf)) + 1
		case control >= 0x80:
			if !p.pass(4) {
				return false
			}
			size += 4
			if data = int(binary.BigEndian.Uint16(p.buf[2:])) + 1; control >= 0xc0 {
				data++ // new properties
			}
		default:
			_ = p.yield(nil, errors.New("it is not what xz writes"))
			return false
		}
		if size = (size + data) % 4; !p.pass(data) { // only its rest counts
			return false
		}
	}
}

// index passes on a stream's index, behind its first byte, and its footer.
func (p *xzParts) index() bool {
	const crc, footer = 4, 12
	size := 1
	count, ok := p.number(&size)
	for ; ok && count > 0; count-- {
		if _, ok = p.number(&size); ok {
			_, ok = p.number(&size)
		}
	}
	return ok && p.pass((4-size%4)%4+crc+footer)
}

// number passes on a number.
func (p *xzParts) number(size *int) (n uint64, ok bool) {
	for shift := 0; shift < 63; shift += 7 {
		if !p.pass(1) {
			return 0, false
		}
		*size = (*size + 1) % 4
		n |= uint64(p.buf[0]&0x7f) << shift
		if p.buf[0]&0x80 == 0 {
			return n, true
		}
	}
	return n, true // more than there can be: the reader says so
}

// checkXZ bounds the memory that a block asks for (3.1 and 5.3.1), by its header.
func checkXZ(block []byte) error {
	flags, at := block[1], 2
	for _, present := range []byte{0x40, 0x80} {
		for flags&present != 0 && at < len(block) {
			at++
			if block[at-1]&0x80 == 0 {
				break
			}
		}
	}
	if flags&3 != 0 || at+2 >= len(block) || block[at] != 0x21 || block[at+1] != 1 {
		return fmt.Errorf("it is compressed with xz and a filter: %w with LZMA2 only", ErrUnknown)
	}
	size, err := lzma.DecodeDictCap(block[at+2])
	if err != nil {
		return err
	}
	if size > MaxWindow {
		return fmt.Errorf("it is compressed with xz and a dictionary of %d bytes, more than the %d that lumina takes", size, int64(MaxWindow))
	}
	return nil
}
