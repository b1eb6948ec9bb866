// Package erofs writes EROFS file systems, uncompressed, as the data arrives.
//
// Why not an existing writer: github.com/erofs/go-erofs v0.3.1 collects all
// file data in a spool file first, writing it twice, and gives each path an
// inode of its own, so that hard links are lost. Here file data goes straight to its place and
// memory holds the tree only.
//
// The format is that of the kernel's fs/erofs/erofs_fs.h. The metadata area
// begins at block 0, so that an inode can be anywhere: its number is its
// position in the file in units of 32 bytes. Inodes are packed into chunks of
// blocks between the file data, small files and the tails of larger ones
// right behind their inode. The superblock and the root's inode are in block 0.
//
// The same calls give the same bytes.
package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

const (
	blockSize   = 4096
	blockBits   = 12
	slotSize    = 32 // unit of inode numbers
	superOffset = 1024
	superSize   = 128
	rootOffset  = superOffset + superSize
	inodeSize   = 64 // the extended form

	// metaChunk is how many blocks are set aside at once for inodes.
	metaChunk = 64
	// holeUnit is the least length of zeros that becomes a hole, in bytes.
	holeUnit = 64 << 10
	// maxChunks bounds the map of a file with holes.
	maxChunks = 64 << 10
	// maxFree bounds the list of free extents, which is searched for each file.
	maxFree = 4096
)

// Layouts of an inode's data.
const (
	flatPlain  = 0
	flatInline = 2
	chunkBased = 4
)

const (
	compatChecksum      = 0x1
	compatMtime         = 0x2
	incompatChunkedFile = 0x4
)

// ErrTooLarge is wrapped when the format cannot hold something.
var ErrTooLarge = errors.New("too large for EROFS")

// File is what an image is written to: an empty file.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Writer writes one image.
type Writer struct {
	f    File
	next uint32 // first block that nothing occupies

	// data is written in order, mostly; buf holds what goes to bufAt.
	buf   []byte
	bufAt int64

	meta    metaAllocator
	free    []extent // blocks of replaced files
	count   uint32   // of inodes, for the field that 32-bit stat shows
	chunked bool
	scratch []byte
	// rootBody follows the root's inode in block 0.
	rootBody []byte
	err      error
}

type extent struct{ start, blocks uint32 }

// NewWriter starts an image.
func NewWriter(f File) *Writer {
	w := &Writer{f: f, next: 1, buf: make([]byte, 0, 1<<20), scratch: make([]byte, holeUnit)}
	w.meta.w = w
	return w
}

// AddFile streams size bytes of r into the image as the content of the regular
// file i, whose other fields are set.
func (w *Writer) AddFile(i *Inode, r io.Reader, size int64) error {
	if w.err == nil {
		w.err = w.addFile(i, r, size)
	}
	return w.err
}

func (w *Writer) addFile(i *Inode, r io.Reader, size int64) error {
	xattrs, err := encodeXattrs(i.Xattrs)
	if err != nil {
		return err
	}
	i.size, i.xattrSize = size, int32(len(xattrs))
	tail := int(size % blockSize)
	// A file that may have holes is not worth a second place for its tail.
	if inodeSize+len(xattrs)+tail > blockSize || size >= 2*holeUnit {
		tail = 0
	}
	if blocks := (size - int64(tail) + blockSize - 1) / blockSize; blocks > math.MaxUint32-1-int64(w.next) {
		return fmt.Errorf("file of %d bytes: %w", size, ErrTooLarge)
	}
	chunks, err := w.writeBlocks(i, r, size-int64(tail))
	if err != nil {
		return err
	}
	body := xattrs
	switch {
	case chunks != nil:
		i.layout = chunkBased
		w.chunked = true
		for _, c := range chunks {
			body = binary.LittleEndian.AppendUint32(body, c)
		}
	case tail > 0:
		i.layout = flatInline
		at := len(body)
		body = append(body, make([]byte, tail)...)
		if err := readFull(r, body[at:]); err != nil {
			return err
		}
	}
	return w.place(i, body)
}

// writeBlocks writes what goes into whole blocks. For a file with holes it
// returns the map of its chunks; otherwise the blocks are contiguous.
func (w *Writer) writeBlocks(i *Inode, r io.Reader, size int64) ([]uint32, error) {
	if size == 0 {
		return nil, nil
	}
	blocks := uint32((size + blockSize - 1) / blockSize)
	i.chunkBits = 16 // holeUnit
	for (i.size+(1<<i.chunkBits)-1)>>i.chunkBits > maxChunks {
		i.chunkBits++
	}
	if e, ok := w.reuse(blocks); ok {
		i.data = e
		if err := w.copyTo(int64(e.start)*blockSize, r, size); err != nil {
			return nil, err
		}
		// The rest of the last block is the old file's; mmap would show it.
		return nil, w.write(int64(e.start)*blockSize+size, zeros[:-size&(blockSize-1)])
	}
	i.data.start = w.next
	chunk := int64(1) << i.chunkBits
	if size < 2*holeUnit {
		i.data.blocks = blocks
		w.next += blocks
		return nil, w.copyTo(int64(i.data.start)*blockSize, r, size)
	}
	return w.writeChunks(i, r, size, chunk)
}

func (w *Writer) writeChunks(i *Inode, r io.Reader, size, chunk int64) ([]uint32, error) {
	var chunks []uint32
	holes := false
	for at := int64(0); at < size; at += chunk {
		n := min(chunk, size-at)
		start := w.next
		empty := true
		for done := int64(0); done < n; {
			part := w.scratch[:min(int64(len(w.scratch)), n-done)]
			if err := readFull(r, part); err != nil {
				return nil, err
			}
			if !isZero(part) {
				empty = false
				if err := w.write(int64(start)*blockSize+done, part); err != nil {
					return nil, err
				}
			}
			done += int64(len(part))
		}
		if empty {
			holes = true
			chunks = append(chunks, math.MaxUint32)
			continue
		}
		chunks = append(chunks, start)
		w.next += uint32((n + blockSize - 1) / blockSize)
	}
	i.data.blocks = w.next - i.data.start
	if !holes {
		return nil, nil
	}
	return chunks, nil
}

var zeros [holeUnit]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

func readFull(r io.Reader, b []byte) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("reading file data: %w", unexpected(err))
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (w *Writer) copyTo(at int64, r io.Reader, size int64) error {
	for size > 0 {
		part := w.scratch[:min(int64(len(w.scratch)), size)]
		if err := readFull(r, part); err != nil {
			return err
		}
		if err := w.write(at, part); err != nil {
			return err
		}
		at += int64(len(part))
		size -= int64(len(part))
	}
	return nil
}

// write is WriteAt through the buffer.
func (w *Writer) write(at int64, p []byte) error {
	if end := w.bufAt + int64(len(w.buf)); at != end {
		// The gap to the end of a block is zero anyway.
		if gap := at - end; gap > 0 && gap < blockSize && len(w.buf)+int(gap) <= cap(w.buf) {
			w.buf = append(w.buf, zeros[:gap]...)
		} else if err := w.flush(); err != nil {
			return err
		} else {
			w.bufAt = at
		}
	}
	for len(p) > 0 {
		n := copy(w.buf[len(w.buf):cap(w.buf)], p)
		w.buf = w.buf[:len(w.buf)+n]
		p = p[n:]
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.f.WriteAt(w.buf, w.bufAt)
	w.bufAt += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// reuse finds room in what replaced files left, the tightest first.
func (w *Writer) reuse(blocks uint32) (extent, bool) {
	best := -1
	for k, e := range w.free {
		if e.blocks >= blocks && (best < 0 || e.blocks < w.free[best].blocks) {
			best = k
		}
	}
	if best < 0 {
		return extent{}, false
	}
	e := extent{w.free[best].start, blocks}
	w.free[best].start += blocks
	w.free[best].blocks -= blocks
	if w.free[best].blocks == 0 {
		w.free = append(w.free[:best], w.free[best+1:]...)
	}
	return e, true
}

// release makes blocks free for other files. What the list has no room for
// stays a hole.
func (w *Writer) release(e extent) error {
	last := len(w.free) - 1
	switch {
	case e.blocks == 0:
	case last >= 0 && w.free[last].start+w.free[last].blocks == e.start:
		w.free[last].blocks += e.blocks // as the files of a removed directory
	case len(w.free) == maxFree:
		return w.clear(e)
	default:
		w.free = append(w.free, e)
	}
	return nil
}

// Discard gives up a file that AddFile added and nothing names any more.
func (w *Writer) Discard(i *Inode) error {
	if w.err != nil || i.position == 0 {
		return w.err
	}
	if w.err = w.release(i.data); w.err != nil {
		return w.err
	}
	// Nothing of a removed file stays readable in the image.
	w.err = w.meta.write(i.position, make([]byte, inodeSize+int(i.bodySize)))
	i.position = 0
	return w.err
}

// place gives i a position and writes it with what follows it: xattrs, then
// inline data or a chunk map.
func (w *Writer) place(i *Inode, body []byte) error {
	if i.position == 0 {
		var err error
		if i.position, err = w.meta.allocate(inodeSize + len(body)); err != nil {
			return err
		}
	}
	w.count++
	i.number, i.bodySize = w.count, int32(len(body))
	return w.meta.write(i.position, append(i.encode(), body...))
}

// Close writes the directories, links and devices below root and the
// superblock. uuid names the file system.
func (w *Writer) Close(root *Inode, uuid [16]byte) error {
	if w.err == nil {
		w.err = w.close(root, uuid)
	}
	return w.err
}

func (w *Writer) close(root *Inode, uuid [16]byte) error {
	root.position = rootOffset
	f := finisher{w: w, seen: map[*Inode]bool{}}
	if err := f.allocate(root); err != nil {
		return fmt.Errorf("%q: %w", f.where(), err)
	}
	if err := f.writeTree(root, root); err != nil {
		return err
	}
	for _, e := range w.free {
		if err := w.clear(e); err != nil {
			return err
		}
	}
	if err := errors.Join(w.flush(), w.meta.flush()); err != nil {
		return err
	}
	if err := w.f.Truncate(int64(w.next) * blockSize); err != nil {
		return err
	}
	return w.writeSuperblock(root, uuid, uint64(f.count))
}

// clear zeroes blocks that nothing uses.
func (w *Writer) clear(e extent) error {
	if err := w.flush(); err != nil {
		return err
	}
	if punch(w.f, int64(e.start)*blockSize, int64(e.blocks)*blockSize) {
		return nil
	}
	for at, end := int64(e.start)*blockSize, int64(e.start+e.blocks)*blockSize; at < end; at += holeUnit {
		if _, err := w.f.WriteAt(zeros[:min(holeUnit, end-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// writeSuperblock writes block 0, whose checksum covers the root's inode too.
func (w *Writer) writeSuperblock(root *Inode, uuid [16]byte, inodes uint64) error {
	b := make([]byte, blockSize)
	copy(b[rootOffset:], append(root.encode(), w.rootBody...))
	s := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(s[0:], 0xe0f5e1e2)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], rootOffset/slotSize)
	le.PutUint64(s[16:], inodes)
	le.PutUint32(s[36:], w.next)
	copy(s[48:64], uuid[:])
	if w.chunked {
		le.PutUint32(s[80:], incompatChunkedFile)
	}
	// As the kernel's crc32c(): started with ones and not inverted at the end.
	le.PutUint32(s[4:], ^crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	_, err := w.f.WriteAt(b, 0)
	return err
}
