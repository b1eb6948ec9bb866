package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/qcow2"
)

// diskImage is a disk that was made elsewhere.
type diskImage interface {
	io.ReaderAt
	Size() int64
	// Data is the first run at or after an offset that may have something in it;
	// io.EOF when nothing more has.
	Data(ctx context.Context, at int64) (from, to int64, err error)
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
	if string(head[:4]) == qcow2.Magic {
		return qcow2.Open(f, info.Size())
	}
	for begin, format := range otherFormats {
		if bytes.HasPrefix(head, []byte(begin)) {
			return nil, fmt.Errorf("it is a %s image; convert it with: qemu-img convert -O qcow2", format)
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
	if err := to.Truncate(from.Size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, copyPiece), make([]byte, copyPiece)
	written := int64(0)
	for at := int64(0); ; {
		begin, end, err := from.Data(ctx, at)
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

func (r *rawDisk) Size() int64 { return r.length }

func (r *rawDisk) Data(_ context.Context, at int64) (from, to int64, err error) {
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
