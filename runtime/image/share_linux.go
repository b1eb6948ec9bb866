package image

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shareUnit is how much is compared, and shared or not, at once, in bytes.
const shareUnit = 128 << 10

// shareEqualBlocks has what is equal at the same place of two files stored once, on
// file systems with reflinks (XFS, btrfs). The kernel compares it.
func shareEqualBlocks(from, to *os.File, size int64) {
	for at := int64(0); at < size; at += shareUnit {
		// A block at the end that both have in part is left alone.
		length := min(shareUnit, size-at) &^ 4095
		if length == 0 {
			return
		}
		r := unix.FileDedupeRange{Src_offset: uint64(at), Src_length: uint64(length),
			Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(to.Fd()), Dest_offset: uint64(at)}}}
		if unix.IoctlFileDedupeRange(int(from.Fd()), &r) != nil || r.Info[0].Status < 0 {
			return // not on this file system
		}
	}
}

// fiemap is struct fiemap of linux/fiemap.h with room for some extents.
type fiemap struct {
	start, length              uint64
	flags, mapped, count, room uint32
	extents                    [256]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// Of linux/fs.h and linux/fiemap.h.
const (
	fsIocFiemap        = 0xc020660b
	fiemapExtentLast   = 0x1
	fiemapExtentShared = 0x2000
)

// sharedExtents are those blocks of a file that another file has, too. A file system
// that cannot tell shares none.
func sharedExtents(f *os.File) (shared []extent) {
	m := new(fiemap)
	for {
		m.length, m.count = ^uint64(0)-m.start, uint32(len(m.extents))
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(m))); errno != 0 || m.mapped == 0 {
			return shared
		}
		for _, e := range m.extents[:min(int(m.mapped), len(m.extents))] {
			if e.flags&fiemapExtentShared != 0 {
				shared = append(shared, extent{int64(e.physical), int64(e.length)})
			}
			if m.start = e.logical + e.length; e.flags&fiemapExtentLast != 0 {
				return shared
			}
		}
	}
}
