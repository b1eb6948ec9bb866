// Package transfer copies a file or a tree of files as one stream of frames,
// without a round trip a file. Host and guest use the same code for either end.
//
// The stream is a number of entries and an End frame. An entry is an Entry
// frame; that of a regular file is followed by Chunk and Hole frames and ends
// with an empty Chunk, so the length of a file need not be known before it is read.
// A Drop frame in place of the empty Chunk says that the file could not be read
// to its end. An Error frame in place of any of these says why the sender gave
// up.
//
// The first entry is the source itself, named by its base name; the others are
// named relative to it. What a directory holds follows it at once, in the order
// of the names' bytes, each name once.
//
// An entry is, in big endian:
//
//	kind            1 byte: 'f' regular file, 'F' one that an 'h' may name,
//	                'd' directory, 'l' symbolic link, 'h' hard link
//	mode            4 bytes: permission, setuid, setgid and sticky bits
//	uid, gid        4 bytes each
//	seconds, nanos  8 and 4 bytes: modification time
//	name            2 bytes of length, then so many bytes; '/' separates
//	target          2 bytes of length, then so many bytes: where a symbolic link
//	                leads, or the name of the 'F' that a hard link is to
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
	kindFile     = 'f'
	kindLinked   = 'F' // a regular file that hard links may come for
	kindDir      = 'd'
	kindLink     = 'l'
	kindHardLink = 'h'
)

const (
	entryFixed = 1 + 4 + 4 + 4 + 8 + 4
	maxName    = 4096 // bytes, as the kernel's PATH_MAX
	modeBits   = 0o7777
	// maxDepth bounds the directories within each other.
	maxDepth = 1000
	// maxLinkedNames bounds what both ends remember of files with several
	// names, in bytes. Those beyond are copied as files of their own.
	maxLinkedNames = 16 << 20
)

// entry is a decoded Entry frame.
type entry struct {
	kind     byte
	mode     uint32
	uid, gid uint32
	mtime    time.Time
	name     string
	target   string
}

// linkedSize is what it takes to remember a file with several names.
func linkedSize(name string) int { return len(name) + 64 }

func (e *entry) isFile() bool { return e.kind == kindFile || e.kind == kindLinked }

func (e *entry) encode() ([]byte, error) {
	if len(e.name) > maxName || len(e.target) > maxName {
		return nil, fmt.Errorf("its path is longer than %d bytes", maxName)
	}
	b := make([]byte, protocol.HeaderSize, protocol.HeaderSize+entryFixed+4+len(e.name)+len(e.target))
	b = append(b, e.kind)
	b = binary.BigEndian.AppendUint32(b, e.mode&modeBits)
	b = binary.BigEndian.AppendUint32(b, e.uid)
	b = binary.BigEndian.AppendUint32(b, e.gid)
	b = binary.BigEndian.AppendUint64(b, uint64(e.mtime.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.mtime.Nanosecond()))
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
	*e = entry{kind: b[0], mode: binary.BigEndian.Uint32(b[1:]), uid: binary.BigEndian.Uint32(b[5:]), gid: binary.BigEndian.Uint32(b[9:])}
	seconds, nanos := int64(binary.BigEndian.Uint64(b[13:])), binary.BigEndian.Uint32(b[21:])
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
	case e.uid > 1<<32-2 || e.gid > 1<<32-2:
		return malformed("an impossible owner")
	case nanos >= 1e9 || seconds < -1<<40 || seconds > 1<<40:
		return malformed("an impossible time")
	case (e.target != "") != (e.kind == kindLink || e.kind == kindHardLink):
		return malformed("a target that does not fit its kind")
	case strings.IndexByte(e.target, 0) >= 0:
		return malformed("a zero byte in its target")
	}
	e.mtime = time.Unix(seconds, int64(nanos))
	switch e.kind {
	case kindFile, kindLinked, kindDir, kindLink, kindHardLink:
	default:
		return malformed(fmt.Sprintf("unknown kind %q", e.kind))
	}
	if !cleanName(e.name) {
		return malformed("name " + printable(e.name))
	}
	return nil
}

// cleanName says whether each part of a name is the name of a file.
func cleanName(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.IndexByte(part, 0) >= 0 {
			return false
		}
	}
	return true
}
