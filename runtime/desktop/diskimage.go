package desktop

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
)

// diskImage is a disk that was made elsewhere.
type diskImage interface {
	io.ReaderAt
	size() int64
	// data is the first run at or after an offset that may have something in it;
	// io.EOF when nothing more has.
	data(ctx context.Context, at int64) (from, to int64, err error)
}

// otherFormats are of images that only look like raw disks, by how they begin.
var otherFormats = map[string]string{
	"KDMV": "VMDK", "vhdxfile": "VHDX", "conectix": "dynamic VHD", "<<< ": "VDI", "LUKS\xba\xbe": "LUKS",
}

// openDisk reads what a disk image is: qcow2, or the disk's bytes.
func openDisk(f *os.File) (diskImage, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	head := make([]byte, 512)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: it has %d bytes", errNoDisk, info.Size())
	}
	if string(head[:4]) == qcow2Magic {
		return openQcow2(f, info.Size())
	}
	for begin, format := range otherFormats {
		if bytes.HasPrefix(head, []byte(begin)) {
			return nil, fmt.Errorf("it is a %s image; qemu-img convert -O qcow2 makes one that is taken", format)
		}
	}
	// What every disk has that was partitioned, and every one that firmware boots.
	if head[510] != 0x55 || head[511] != 0xAA {
		return nil, fmt.Errorf("%w: it has no partition table", errNoDisk)
	}
	return &rawDisk{f, info.Size()}, nil
}

var errNoDisk = errors.New("it is neither a qcow2 nor a raw disk image")

// copyPiece is how much of a disk is looked at whether it is all zeros.
const copyPiece = 64 << 10

// spaceStep is after how many written bytes the free space is looked at: a small image
// can say that a disk is full of one cluster.
const spaceStep = 64 << 20

// copyDisk writes a disk to an empty file, which gets holes where it has nothing. It
// keeps the reserve of the host's disk free.
func copyDisk(ctx context.Context, to *os.File, from diskImage) error {
	if err := to.Truncate(from.size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, copyPiece), make([]byte, copyPiece)
	written := int64(0)
	for at := int64(0); ; {
		begin, end, err := from.data(ctx, at)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for at = begin; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			piece := buf[:min(end-at, copyPiece)]
			if _, err := from.ReadAt(piece, at); err != nil {
				return fmt.Errorf("reading the disk image at %d: %w", at, err)
			}
			if !bytes.Equal(piece, zeros[:len(piece)]) {
				if written%spaceStep < int64(len(piece)) {
					if free, err := runtime.FreeSpace(filepath.Dir(to.Name())); err == nil && free < spaceStep+runtime.DefaultDiskReserve {
						return fmt.Errorf("it has more than %d MB in it, and %d MB are free for a copy: %w", written/1_000_000, free/1_000_000, unix.ENOSPC)
					}
				}
				written += int64(len(piece))
				if _, err := to.WriteAt(piece, at); err != nil {
					return err
				}
			}
			at += int64(len(piece))
		}
	}
}

// rawDisk is a disk's bytes.
type rawDisk struct {
	*os.File
	length int64
}

func (r *rawDisk) size() int64 { return r.length }

func (r *rawDisk) data(_ context.Context, at int64) (from, to int64, err error) {
	from, err = r.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && from >= r.length {
		return 0, 0, io.EOF
	}
	if err == nil {
		to, err = r.Seek(from, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, err
	}
	return from, min(to, r.length), nil
}

// qcow2 is QEMU's format (docs/interop/qcow2.txt there), without what few images
// have: other files it refers to, encryption, compression that is not deflate.
type qcow2 struct {
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
	qcow2Magic = "QFI\xfb"
	// maxFirst bounds the first table, in bytes: QEMU's own limit.
	maxFirst = 32 << 20
	// offsetBits are those of an entry that are an offset in the file.
	offsetBits = 1<<56 - 1<<9
	compressed = 1 << 62
)

func openQcow2(f io.ReaderAt, fileSize int64) (*qcow2, error) {
	h := make([]byte, 104)
	if _, err := f.ReadAt(h, 0); err != nil {
		return nil, fmt.Errorf("reading the qcow2 image: %w", err)
	}
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	q := &qcow2{f: f, length: int64(be.Uint64(h[24:])), bits: uint(be.Uint32(h[20:])), zeros: version == 3}
	switch {
	case version != 2 && version != 3:
		return nil, fmt.Errorf("the qcow2 image has version %d", version)
	case be.Uint64(h[8:]) != 0:
		return nil, errors.New("the qcow2 image needs another one that it was made from; qemu-img convert makes one that does not")
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

func (q *qcow2) size() int64 { return q.length }

// secondAt is where the second-level table of an offset of the disk is; 0: there
// is none, for nothing is there.
func (q *qcow2) secondAt(at int64) int64 {
	return int64(binary.BigEndian.Uint64(q.first[at>>(2*q.bits-3)*8:]) & offsetBits)
}

// entry is that of the cluster at an offset of the disk; 0: it is all zeros.
func (q *qcow2) entry(at int64) (uint64, error) {
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
	e := binary.BigEndian.Uint64(q.table[at>>q.bits%(1<<(q.bits-3))*8:])
	if e&compressed == 0 && (q.zeros && e&1 != 0 || e&offsetBits == 0) {
		return 0, nil
	}
	return e, nil
}

func (q *qcow2) data(ctx context.Context, at int64) (from, to int64, err error) {
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
func (q *qcow2) ReadAt(p []byte, at int64) (n int, err error) {
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
func (q *qcow2) inflate(e uint64) error {
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
