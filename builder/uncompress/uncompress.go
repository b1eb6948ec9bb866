// Package uncompress reads compressed streams. How one is compressed is seen from
// how it begins, whatever its name or media type says.
package uncompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// MaxWindow bounds what a stream may make its reader hold, in bytes: what xz -9
// and zstd --long=27 ask for is less.
const MaxWindow = 128 << 20

// ErrUnknown is wrapped when a stream is compressed in a way that is not read.
var ErrUnknown = errors.New("lumina reads gzip, zstd, bzip2 and xz")

// unread are the beginnings of what is known and not read.
var unread = []struct{ name, begins string }{
	{"lz4", "\x04\x22\x4d\x18"}, {"lzip", "LZIP"}, {"lzop", "\x89LZO"}, {"7z", "7z\xbc\xaf\x27\x1c"}, {"zip", "PK\x03\x04"},
	{"compress", "\x1f\x9d"}, {"lzma", "\x5d\x00\x00"}, {"snappy", "\xff\x06\x00\x00sNaPpY"},
}

// headSize is how much of a stream is looked at: an archive shows itself by then.
const headSize = 512

// Reader reads what a stream holds. Its closing does not close r.
func Reader(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case isTar(head):
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case isZstd(head):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return newXZ(b)
	default:
		for _, u := range unread {
			if bytes.HasPrefix(head, []byte(u.begins)) {
				return nil, fmt.Errorf("it is compressed with %s: %w", u.name, ErrUnknown)
			}
		}
	}
	return io.NopCloser(b), nil
}

// Is says whether a stream that begins so is compressed in a way that is known.
func Is(head []byte) bool {
	compressed := bytes.HasPrefix(head, []byte{0x1f, 0x8b}) || isZstd(head) || bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte("\xfd7zXZ\x00"))
	for _, u := range unread {
		compressed = compressed || bytes.HasPrefix(head, []byte(u.begins))
	}
	return compressed && !isTar(head)
}

// isTar says whether this is a header of an archive: its first file may have any
// name, such as BZh.
func isTar(head []byte) bool {
	return len(head) >= 512 && bytes.Equal(head[257:262], []byte("ustar"))
}

// isZstd knows frames, and those that are to be skipped: what zstd:chunked and
// pzstd begin with (RFC 8878, 3.1).
func isZstd(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}
