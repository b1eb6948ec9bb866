package qcow2

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
)

// Reader reads an image of version 2 or 3, without what few images have: other files
// that it refers to, encryption, compression that is not deflate.
type Reader struct {
	f       io.ReaderAt
	length  int64 // of the disk
	bits    uint  // of a cluster's size
	zeros   bool  // entries can say that a cluster is all zeros
	first   []byte
	table   []byte // the second-level table that was needed last
	tableAt int64
	cluster []byte // the compressed cluster that was read last
	from    uint64
}

const (
	// maxFirst bounds the first table, in bytes: QEMU's own limit.
	maxFirst = 32 << 20
	// offsetBits are those of an entry that are an offset in the file.
	offsetBits = 1<<56 - 1<<9
	compressed = 1 << 62
)

// Open opens an image in a file of so many bytes.
func Open(f io.ReaderAt, fileSize int64) (*Reader, error) {
	h := make([]byte, 104)
	if _, err := f.ReadAt(h, 0); err != nil {
		return nil, fmt.Errorf("reading the qcow2 image: %w", err)
	}
	version := be.Uint32(h[4:])
	q := &Reader{f: f, length: int64(be.Uint64(h[24:])), bits: uint(be.Uint32(h[20:])), zeros: version == 3}
	switch {
	case version != 2 && version != 3:
		return nil, fmt.Errorf("the qcow2 image has version %d", version)
	case be.Uint64(h[8:]) != 0:
		return nil, errors.New("the qcow2 image has a backing file; qemu-img convert makes an image without one")
	case be.Uint32(h[32:]) != 0:
		return nil, errors.New("the qcow2 image is encrypted")
	case version == 3 && be.Uint64(h[72:])&^1 != 0: // bit 0: not closed properly, which its counts of references suffer from
		return nil, fmt.Errorf("the qcow2 image has features %#x that are not known here; qemu-img convert makes one without", be.Uint64(h[72:]))
	case q.bits < 9 || q.bits > 21 || q.length <= 0:
		return nil, fmt.Errorf("the qcow2 image's header is damaged: clusters of 2^%d bytes, a disk of %d", q.bits, q.length)
	}
	covers := int64(1) << (2*q.bits - 3) // by one entry
	entries := (q.length-1)/covers + 1
	if entries*8 > maxFirst || entries > int64(be.Uint32(h[36:])) {
		return nil, fmt.Errorf("the qcow2 image's header is damaged: %d entries for a disk of %d bytes", be.Uint32(h[36:]), q.length)
	}
	at := int64(be.Uint64(h[40:]))
	if at < 0 || at > fileSize-entries*8 {
		return nil, errors.New("the qcow2 image is truncated")
	}
	q.first = make([]byte, entries*8)
	if _, err := f.ReadAt(q.first, at); err != nil {
		return nil, fmt.Errorf("reading the qcow2 image: %w", err)
	}
	return q, nil
}

// Size is the disk's, in bytes.
func (q *Reader) Size() int64 { return q.length }

// secondAt is where the second-level table of an offset of the disk is; 0: there
// is none, for nothing is there.
func (q *Reader) secondAt(at int64) int64 {
	return int64(be.Uint64(q.first[at>>(2*q.bits-3)*8:]) & offsetBits)
}

// entry is that of the cluster at an offset of the disk; 0: it is all zeros.
func (q *Reader) entry(at int64) (uint64, error) {
	second := q.secondAt(at)
	if second == 0 {
		return 0, nil
	}
	if second != q.tableAt {
		table := make([]byte, 1<<q.bits)
		if _, err := q.f.ReadAt(table, second); err != nil {
			return 0, fmt.Errorf("reading a table of the qcow2 image: %w", err)
		}
		q.table, q.tableAt = table, second
	}
	e := be.Uint64(q.table[at>>q.bits%(1<<(q.bits-3))*8:])
	if e&compressed == 0 && (q.zeros && e&1 != 0 || e&offsetBits == 0) {
		return 0, nil
	}
	return e, nil
}

// Data is the first run at or after an offset that may have something in it; [io.EOF] when
// nothing more has.
func (q *Reader) Data(ctx context.Context, at int64) (from, to int64, err error) {
	size, covers := int64(1)<<q.bits, int64(1)<<(2*q.bits-3)
	for at < q.length {
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		if q.secondAt(at) == 0 {
			at = (at/covers + 1) * covers
			continue
		}
		end := (at/size + 1) * size
		e, err := q.entry(at)
		if err != nil {
			return 0, 0, err
		}
		if e != 0 {
			return at, min(end, q.length), nil
		}
		at = end
	}
	return 0, 0, io.EOF
}

// ReadAt is part of [io.ReaderAt]. It reads within the disk.
func (q *Reader) ReadAt(p []byte, at int64) (n int, err error) {
	size := int64(1) << q.bits
	for n < len(p) {
		e, err := q.entry(at)
		if err != nil {
			return n, err
		}
		part, inside := p[n:min(int64(len(p)), int64(n)+size-at%size)], at%size
		switch {
		case e == 0:
			clear(part)
		case e&compressed != 0:
			if err := q.inflate(e); err != nil {
				return n, err
			}
			copy(part, q.cluster[inside:])
		default:
			if _, err := q.f.ReadAt(part, int64(e&offsetBits)+inside); err != nil {
				return n, err
			}
		}
		n, at = n+len(part), at+int64(len(part))
	}
	return n, nil
}

// inflate reads a compressed cluster.
func (q *Reader) inflate(e uint64) error {
	if q.cluster != nil && e == q.from {
		return nil
	}
	// Offset, and how many sectors beside the first one it has part of.
	split := 62 - (q.bits - 8)
	offset, sectors := int64(e&(1<<split-1)), int64(e&(compressed-1)>>split)
	in := io.NewSectionReader(q.f, offset, (sectors+1)*512-offset%512)
	cluster := make([]byte, 1<<q.bits)
	if _, err := io.ReadFull(flate.NewReader(in), cluster); err != nil {
		return fmt.Errorf("a compressed part of the qcow2 image: %w", err)
	}
	q.cluster, q.from = cluster, e
	return nil
}
