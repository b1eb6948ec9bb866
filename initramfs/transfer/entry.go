// Package transfer copies a file or a tree of files as one stream of frames,
// without a round trip a file. Host and guest use the same code for either end.
//
// The stream is, for each file, an Entry frame and, for a regular file of a
// size, Chunk and Hole frames that add up to it; then an End frame. The first
// entry is the source itself, named by its base name; the others are named
// relative to it, directories before what they hold. An Error frame in place
// of any of these says why the sender gave up.
//
// An entry is, in big endian:
//
//	kind            1 byte: 'f' regular file, 'd' directory, 'l' symbolic link
//	mode            4 bytes: permission, setuid, setgid and sticky bits
//	seconds, nanos  8 and 4 bytes: modification time
//	size            8 bytes: of a regular file
//	name            2 bytes of length, then so many bytes; '/' separates
//	target          2 bytes of length, then so many bytes: of a link
//
// The receiver takes the sender for hostile: see [Receive].
package transfer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Kinds of entries.
const (
	kindFile = 'f'
	kindDir  = 'd'
	kindLink = 'l'
)

const (
	entryFixed = 1 + 4 + 8 + 4 + 8
	maxName    = 4096 // bytes, as the kernel's PATH_MAX
	modeBits   = 0o7777
)

// entry is a decoded Entry frame.
type entry struct {
	kind   byte
	mode   uint32
	mtime  time.Time
	size   int64
	name   string
	target string
}

func (e *entry) encode() ([]byte, error) {
	if len(e.name) > maxName || len(e.target) > maxName {
		return nil, fmt.Errorf("name of %q is longer than %d bytes", e.name[:min(len(e.name), 64)], maxName)
	}
	b := make([]byte, protocol.HeaderSize, protocol.HeaderSize+entryFixed+4+len(e.name)+len(e.target))
	b = append(b, e.kind)
	b = binary.BigEndian.AppendUint32(b, e.mode&modeBits)
	b = binary.BigEndian.AppendUint64(b, uint64(e.mtime.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.mtime.Nanosecond()))
	b = binary.BigEndian.AppendUint64(b, uint64(e.size))
	for _, s := range []string{e.name, e.target} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

// decode reads an entry and checks everything that can be checked by itself.
func decode(b []byte, e *entry) error {
	malformed := func(what string) error {
		return fmt.Errorf("%w: entry with %s", protocol.ErrMalformed, what)
	}
	if len(b) < entryFixed {
		return malformed("too few bytes")
	}
	*e = entry{kind: b[0], mode: binary.BigEndian.Uint32(b[1:])}
	seconds, nanos := int64(binary.BigEndian.Uint64(b[5:])), binary.BigEndian.Uint32(b[13:])
	size := binary.BigEndian.Uint64(b[17:])
	b = b[entryFixed:]
	for _, s := range []*string{&e.name, &e.target} {
		if len(b) < 2 {
			return malformed("too few bytes")
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n > len(b) || n > maxName {
			return malformed("a name longer than it may be")
		}
		*s, b = string(b[:n]), b[n:]
	}
	switch {
	case len(b) != 0:
		return malformed("bytes behind it")
	case e.mode > modeBits:
		return malformed("an unknown mode")
	case nanos >= 1e9 || seconds < -1<<40 || seconds > 1<<40:
		return malformed("an impossible time")
	case size > 1<<62 || (size > 0 && e.kind != kindFile):
		return malformed("an impossible size")
	case (e.target != "") != (e.kind == kindLink):
		return malformed("a target that does not fit its kind")
	case strings.IndexByte(e.name, 0) >= 0 || strings.IndexByte(e.target, 0) >= 0:
		return malformed("a zero byte in its name")
	}
	e.mtime, e.size = time.Unix(seconds, int64(nanos)), int64(size)
	switch e.kind {
	case kindFile, kindDir, kindLink:
	default:
		return malformed(fmt.Sprintf("unknown kind %q", e.kind))
	}
	for _, part := range strings.Split(e.name, "/") {
		if part == "" || part == "." || part == ".." {
			return malformed(fmt.Sprintf("name %q", e.name))
		}
	}
	return nil
}
