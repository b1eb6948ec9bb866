package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The messages are those of the kernel's include/uapi/linux/fuse.h, version 7.31 and
// later. Numbers have the guest's order of bytes, little endian on both architectures.
const (
	versionMajor = 7
	versionMinor = 38 // the newest that is answered as
	leastMinor   = 31

	requestSize = 40 // bytes of a request's header
	replySize   = 16 // bytes of an answer's header
	attrSize    = 88
	entrySize   = 40 + attrSize
	direntSize  = 24
	rootID      = 1
)

type opcode uint32

const (
	opLookup        opcode = 1
	opForget        opcode = 2
	opGetattr       opcode = 3
	opSetattr       opcode = 4
	opReadlink      opcode = 5
	opSymlink       opcode = 6
	opMknod         opcode = 8
	opMkdir         opcode = 9
	opUnlink        opcode = 10
	opRmdir         opcode = 11
	opRename        opcode = 12
	opLink          opcode = 13
	opOpen          opcode = 14
	opRead          opcode = 15
	opWrite         opcode = 16
	opStatfs        opcode = 17
	opRelease       opcode = 18
	opFsync         opcode = 20
	opSetxattr      opcode = 21
	opGetxattr      opcode = 22
	opListxattr     opcode = 23
	opRemovexattr   opcode = 24
	opInit          opcode = 26
	opOpendir       opcode = 27
	opReaddir       opcode = 28
	opReleasedir    opcode = 29
	opFsyncdir      opcode = 30
	opCreate        opcode = 35
	opInterrupt     opcode = 36
	opDestroy       opcode = 38
	opIoctl         opcode = 39
	opBatchForget   opcode = 42
	opFallocate     opcode = 43
	opReaddirplus   opcode = 44
	opRename2       opcode = 45
	opLseek         opcode = 46
	opCopyFileRange opcode = 47
	opTmpfile       opcode = 51
)

// Of INIT: what the two sides agree on.
const (
	initAsyncRead       = 1 << 0
	initAtomicTrunc     = 1 << 3
	initBigWrites       = 1 << 5
	initAutoInvalData   = 1 << 12
	initReaddirplus     = 1 << 13
	initReaddirplusAuto = 1 << 14
	initAsyncDIO        = 1 << 15
	initParallelDirOps  = 1 << 18
	initMaxPages        = 1 << 22
	initKillPriv        = 1 << 28

	// initWanted: data that the guest has kept is read again when the file has
	// changed, and the kernel of the host takes setuid from what is written to.
	initWanted = initAsyncRead | initAtomicTrunc | initBigWrites | initAutoInvalData | initReaddirplus | initReaddirplusAuto |
		initAsyncDIO | initParallelDirOps | initMaxPages | initKillPriv
)

// Of SETATTR: which fields are set.
const (
	setMode     = 1 << 0
	setUID      = 1 << 1
	setGID      = 1 << 2
	setSize     = 1 << 3
	setAtime    = 1 << 4
	setMtime    = 1 << 5
	setHandle   = 1 << 6
	setAtimeNow = 1 << 7
	setMtimeNow = 1 << 8
)

const (
	attrOfHandle   = 1 << 0 // GETATTR
	fsyncData      = 1 << 0 // FSYNC
	writeFromCache = 1 << 0 // WRITE: of mapped memory, at its offset
)

// errNoMessage is wrapped by the error of what is not a message.
var errNoMessage = errors.New("the guest sent something that is not a FUSE message")

// request is a message of the guest's.
type request struct {
	op           opcode
	unique, node uint64
	uid, gid     uint32
	body         []byte
	buffer       []byte // of body
}

// read reads the next message.
func (r *request) read(from io.Reader) error {
	var header [requestSize]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return err
	}
	f := fields{rest: header[:]}
	size := f.u32()
	*r = request{op: opcode(f.u32()), unique: f.u64(), node: f.u64(), uid: f.u32(), gid: f.u32(), buffer: r.buffer}
	if size < requestSize || size > maxMessage {
		return fmt.Errorf("%w: it has %d bytes, want %d to %d", errNoMessage, size, requestSize, maxMessage)
	}
	n := int(size - requestSize)
	if n > cap(r.buffer) {
		r.buffer = make([]byte, max(n, 4<<10))
	}
	r.body = r.buffer[:n]
	_, err := io.ReadFull(from, r.body)
	return err
}

// fields reads a message's fields. Those of one that is too short are zero, and bad.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.rest) {
		f.bad = true
		return make([]byte, n)
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) u32() uint32 { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) u64() uint64 { return binary.LittleEndian.Uint64(f.take(8)) }
func (f *fields) skip(n int)  { f.take(n) }

// text is a string up to its zero byte.
func (f *fields) text() string {
	n := bytes.IndexByte(f.rest, 0)
	if f.bad || n < 0 {
		f.bad = true
		return ""
	}
	s := string(f.rest[:n])
	f.rest = f.rest[n+1:]
	return s
}

// maxName is the longest name of a file, NAME_MAX.
const maxName = 255

// name is the name of a file in a directory, and of nothing else.
func (f *fields) name() string {
	s := f.text()
	if s == "" || s == "." || s == ".." || len(s) > maxName || bytes.IndexByte([]byte(s), '/') >= 0 {
		f.bad = true
		return ""
	}
	return s
}

// answer is a message to the guest in the making: a header's place, and the body.
type answer []byte

func (a *answer) u16(v uint16) { *a = binary.LittleEndian.AppendUint16(*a, v) }
func (a *answer) u32(v uint32) { *a = binary.LittleEndian.AppendUint32(*a, v) }
func (a *answer) u64(v uint64) { *a = binary.LittleEndian.AppendUint64(*a, v) }
func (a *answer) zeros(n int)  { *a = append(*a, make([]byte, n)...) }

// begin empties it.
func (a *answer) begin() {
	*a = (*a)[:0]
	a.zeros(replySize)
}

// room makes it n bytes longer, and returns those.
func (a *answer) room(n int) []byte {
	had := len(*a)
	if had+n > cap(*a) {
		grown := make([]byte, had, had+n)
		copy(grown, *a)
		*a = grown
	}
	*a = (*a)[:had+n]
	return (*a)[had:]
}

// end fills the header in. An answer with an error has nothing else.
func (a *answer) end(unique uint64, errno int32) {
	if errno != 0 {
		*a = (*a)[:replySize]
	}
	binary.LittleEndian.PutUint32(*a, uint32(len(*a)))
	binary.LittleEndian.PutUint32((*a)[4:], uint32(-errno))
	binary.LittleEndian.PutUint64((*a)[8:], unique)
}

// valid is how long the guest may cache an answer: seconds, nanoseconds.
const (
	validSeconds     = uint64(validity / time.Second)
	validNanoseconds = uint32(validity % time.Second)
)

// opened is the answer to what opens a file.
func (a *answer) opened(handle uint64) {
	a.u64(handle)
	a.u64(0)
}

// dirent is an entry of a directory.
func (a *answer) dirent(ino, offset uint64, kind uint32, name []byte) {
	a.u64(ino)
	a.u64(offset)
	a.u32(uint32(len(name)))
	a.u32(kind)
	*a = append(*a, name...)
	a.zeros(pad(len(name)))
}

// pad is what makes n a multiple of 8.
func pad(n int) int { return -n & 7 }
