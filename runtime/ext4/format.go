// Package ext4 makes empty, journaled ext4 file systems in sparse files, on
// any host and without mke2fs: every VM gets a fresh one.
//
// Only the blocks that say something are written, about a dozen for any size:
// group descriptors mark all other bitmaps and inode tables as uninitialised,
// which the kernel takes for zero. The format is that of the kernel's
// Documentation/filesystems/ext4.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

const (
	blockSize      = 4096
	blocksPerGroup = blockSize * 8 // one bitmap block
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 32

	rootInode      = 2
	journalInode   = 8
	firstInode     = 11 // lost+found; the ones before are reserved
	usedInodes     = firstInode
	smallSize      = 512 << 20
	extraInodeSize = 32

	// MinSize and MaxSize bound the size of a file system, in bytes. Block
	// numbers have 32 bits.
	MinSize = 16 << 20
	MaxSize = 16<<40 - blockSize
)

// Features, from the kernel's fs/ext4/ext4.h.
const (
	compatJournal      = 0x4
	compatXattr        = 0x8
	compatDirIndex     = 0x20
	compatSparseSuper2 = 0x200 // backups in at most two groups, which the superblock names
	incompatFiletype   = 0x2
	incompatExtents    = 0x40
	incompatFlexGroups = 0x200 // a group's tables may be in another group
	roSparseSuper      = 0x1   // backups in groups 1 and powers of 3, 5, 7
	roLargeFile        = 0x2
	roHugeFile         = 0x8
	roGroupChecksum    = 0x10
	roDirNlink         = 0x20
	roExtraInodeSize   = 0x40
)

// Flags of a group.
const (
	inodesUninit = 1 << iota
	blocksUninit
	inodesZeroed // nothing to do for the kernel's lazy initialisation
)

// ErrSize is wrapped when a size cannot be had.
var ErrSize = errors.New("size is out of range")

// Options of Format. The same options give the same bytes.
type Options struct {
	Label string // at most 16 bytes
	UUID  [16]byte
	Time  time.Time // of creation; the zero value is 1970
	// Grows makes one that the kernel can grow while it is mounted. It has more
	// copies of its descriptors.
	Grows bool
}

// File is what a file system is made in: an empty, sparse file.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Format makes a file system of size bytes, rounded down to what the format
// can use, in an empty file, whose size it sets.
func Format(f File, size int64, o Options) error {
	if size < MinSize || size > MaxSize {
		return fmt.Errorf("%d bytes: %w: %d to %d", size, ErrSize, int64(MinSize), int64(MaxSize))
	}
	if len(o.Label) > 16 {
		return fmt.Errorf("label %q is longer than 16 bytes", o.Label)
	}
	l := layOut(size, o.Grows)
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("sizing the file system: %w", err)
	}
	for _, b := range l.blocks(o) {
		if _, err := f.WriteAt(b.data, int64(b.number)*blockSize); err != nil {
			return fmt.Errorf("writing the file system: %w", err)
		}
	}
	return nil
}

// layout says where everything is. A group is: the superblock and the
// descriptors where it has them, the block bitmap, the inode bitmap, the inode
// table, and the blocks of files.
//
// In one that does not grow, bitmaps and tables of the first groups are all in
// group 0, and all groups are one "flexible" group: the kernel then makes new files
// in the first groups, not all over the disk. So what a file system needs first is
// near its beginning, where Reserve takes the room for it.
type layout struct {
	blockCount     uint32
	groups         uint32
	inodesPerGroup uint32
	tableBlocks    uint32 // of one group's inode table
	descBlocks     uint32
	journalBlocks  uint32
	grows          bool
	bitmaps        uint32 // how many groups have their bitmaps in group 0
	tables         uint32 // and how many their inode table
}

// What group 0 holds of other groups at most, in blocks.
const (
	maxBitmaps = 1024
	maxTables  = 2048
)

func layOut(size int64, grows bool) layout {
	l := layout{blockCount: uint32(size / blockSize), grows: grows}
	bytesPerInode, journal := int64(16<<10), int64(16<<20)
	if size < smallSize {
		bytesPerInode, journal = 4<<10, 4<<20 // the journal's least size
	}
	perGroup := min(size, blocksPerGroup*blockSize) / bytesPerInode
	l.inodesPerGroup = uint32(perGroup / inodesPerBlock * inodesPerBlock)
	l.tableBlocks = l.inodesPerGroup / inodesPerBlock
	l.journalBlocks = uint32(journal / blockSize)
	// A last group that could hold little more than its own tables is left off.
	if rest := l.blockCount % blocksPerGroup; l.blockCount > blocksPerGroup && rest < l.tableBlocks+64 {
		l.blockCount -= rest
	}
	l.groups = (l.blockCount + blocksPerGroup - 1) / blocksPerGroup
	l.descBlocks = (l.groups*descSize + blockSize - 1) / blockSize
	l.bitmaps, l.tables = 1, 1
	if !grows {
		l.bitmaps = min(l.groups, maxBitmaps)
		l.tables = min(l.groups, max(1, maxTables/l.tableBlocks))
	}
	return l
}

// backupGroup holds the copy of superblock and descriptors in one that does not
// grow; 0: there is none.
func (l *layout) backupGroup() uint32 {
	if l.groups > 1 && !l.grows {
		return 1
	}
	return 0
}

// hasSuper tells whether a group has superblock and descriptors, or a copy.
func (l *layout) hasSuper(group uint32) bool {
	if !l.grows || group <= 1 {
		return group <= 1
	}
	for _, base := range []uint32{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

func (l *layout) size(group uint32) uint32 {
	return min(blocksPerGroup, l.blockCount-group*blocksPerGroup)
}

// lastGroup tells whether a group is the last of several: it cannot do without a
// bitmap, which marks what is beyond its end; e2fsck wants it also when there is
// nothing.
func (l *layout) lastGroup(group uint32) bool { return group > 0 && group == l.groups-1 }

// own is the first block of a group behind its superblock and descriptors.
func (l *layout) own(group uint32) uint32 {
	start := group * blocksPerGroup
	if l.hasSuper(group) {
		start += 1 + l.descBlocks
	}
	return start
}

func (l *layout) blockBitmapAt(group uint32) uint32 {
	if group < l.bitmaps {
		return l.own(0) + group
	}
	return l.own(group)
}

func (l *layout) inodeBitmapAt(group uint32) uint32 {
	if group < l.bitmaps {
		return l.own(0) + l.bitmaps + group
	}
	return l.own(group) + 1
}

func (l *layout) inodeTableAt(group uint32) uint32 {
	switch {
	case group < l.tables:
		return l.own(0) + 2*l.bitmaps + group*l.tableBlocks
	case group < l.bitmaps:
		return l.own(group)
	}
	return l.own(group) + 2
}

// overhead is how many blocks of a group hold none of a file.
func (l *layout) overhead(group uint32) uint32 {
	n := l.own(group) - group*blocksPerGroup
	if group == 0 {
		return n + 2*l.bitmaps + l.tables*l.tableBlocks
	}
	if group >= l.bitmaps {
		n += 2
	}
	if group >= l.tables {
		n += l.tableBlocks
	}
	return n
}

// The files of group 0, right behind its tables.
func (l *layout) rootBlock() uint32    { return l.overhead(0) }
func (l *layout) lostBlock() uint32    { return l.overhead(0) + 1 }
func (l *layout) journalBlock() uint32 { return l.overhead(0) + 2 }

func (l *layout) used(group uint32) uint32 {
	if group == 0 {
		return l.overhead(0) + 2 + l.journalBlocks
	}
	return l.overhead(group)
}

// extra is how much of group 0 behind the journal, for directories, and at the
// beginning of group 1, where the kernel puts small files first, is reserved.
const extra = 8 << 20

// span is a part of the disk, in bytes.
type span struct{ start, length int64 }

// reserved is what Reserve takes. It never is more than a quarter of the disk beyond the
// journal.
func (l *layout) reserved() []span {
	more := min(extra, int64(l.blockCount)*blockSize/8)
	spans := []span{{0, int64(l.journalBlock()+l.journalBlocks)*blockSize + more}}
	if l.groups > 1 {
		spans = append(spans, span{int64(l.own(1)) * blockSize, more})
	}
	return spans
}

type block struct {
	number uint32
	data   []byte
}

func (l *layout) blocks(o Options) []block {
	descriptors := l.descriptors(o)
	first := make([]byte, blockSize)
	copy(first[1024:], l.superblock(o, 0))
	blocks := []block{
		{0, first},
		{1, descriptors},
		{l.blockBitmapAt(0), l.blockBitmap(0)},
		{l.inodeBitmapAt(0), l.inodeBitmap()},
		{l.inodeTableAt(0), l.inodeTable(o)},
		{l.rootBlock(), directory(entry{rootInode, "."}, entry{rootInode, ".."}, entry{firstInode, "lost+found"})},
		{l.lostBlock(), directory(entry{firstInode, "."}, entry{rootInode, ".."})},
		{l.journalBlock(), l.journalSuperblock(o)},
	}
	if g := l.groups - 1; l.lastGroup(g) {
		blocks = append(blocks, block{l.blockBitmapAt(g), l.blockBitmap(g)})
	}
	for g := uint32(1); g < l.groups; g++ {
		if l.hasSuper(g) {
			blocks = append(blocks, block{g * blocksPerGroup, l.superblock(o, uint16(g))}, block{g*blocksPerGroup + 1, descriptors})
		}
	}
	return blocks
}

var le, be = binary.LittleEndian, binary.BigEndian

func (l *layout) superblock(o Options, group uint16) []byte {
	b := make([]byte, 1024)
	put16 := func(at int, v uint16) { le.PutUint16(b[at:], v) }
	put32 := func(at int, v uint32) { le.PutUint32(b[at:], v) }
	free := l.blockCount
	for g := range l.groups {
		free -= l.used(g)
	}
	now := seconds(o.Time)
	put32(0x00, l.inodesPerGroup*l.groups)
	put32(0x04, l.blockCount)
	put32(0x0c, free)
	put32(0x10, l.inodesPerGroup*l.groups-usedInodes)
	put32(0x18, 2) // block size: 1024 << 2
	put32(0x1c, 2) // cluster size
	put32(0x20, blocksPerGroup)
	put32(0x24, blocksPerGroup)
	put32(0x28, l.inodesPerGroup)
	put32(0x30, now)            // written
	put16(0x36, math.MaxUint16) // no check after so many mounts
	put16(0x38, 0xef53)
	put16(0x3a, 1) // clean
	put16(0x3c, 1) // on errors: go on
	put32(0x40, now)
	put32(0x4c, 1) // revision with dynamic inode sizes
	put32(0x54, firstInode)
	put16(0x58, inodeSize)
	put16(0x5a, group)
	compat, incompat, ro := uint32(compatSparseSuper2), uint32(incompatFlexGroups), uint32(0)
	if l.grows { // the kernel grows none of the other kind
		compat, incompat, ro = 0, 0, roSparseSuper
	} else {
		b[0x174] = byte(max(2, bits.Len32(l.groups-1))) // log2 of the groups in a flexible one
	}
	put32(0x5c, compat|compatJournal|compatXattr|compatDirIndex)
	put32(0x60, incompat|incompatFiletype|incompatExtents)
	put32(0x64, ro|roLargeFile|roHugeFile|roGroupChecksum|roDirNlink|roExtraInodeSize)
	copy(b[0x68:0x78], o.UUID[:])
	copy(b[0x78:0x88], o.Label)
	put32(0xe0, journalInode)
	copy(b[0xec:0xfc], o.UUID[:]) // seed of directory hashes
	b[0xfc] = 1                   // half MD4
	b[0xfd] = 1                   // what follows at 0x10c is a copy of the journal's inode
	put32(0x100, 0x4|0x8)         // mount with xattrs and ACLs
	put32(0x108, now)
	copy(b[0x10c:], l.journalExtent())
	put32(0x10c+64, l.journalBlocks*blockSize)
	put16(0x15c, extraInodeSize)
	put16(0x15e, extraInodeSize)
	put32(0x160, 1) // directory hashes take characters as signed
	put32(0x24c, l.backupGroup())
	return b
}

func seconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(t.Unix())
}

func (l *layout) descriptors(o Options) []byte {
	b := make([]byte, l.descBlocks*blockSize)
	for g := range l.groups {
		d := b[g*descSize:][:descSize]
		le.PutUint32(d[0x00:], l.blockBitmapAt(g))
		le.PutUint32(d[0x04:], l.inodeBitmapAt(g))
		le.PutUint32(d[0x08:], l.inodeTableAt(g))
		le.PutUint16(d[0x0c:], uint16(l.size(g)-l.used(g)))
		inodes, flags := l.inodesPerGroup, uint16(inodesUninit|blocksUninit|inodesZeroed)
		if g == 0 {
			inodes, flags = inodes-usedInodes, inodesZeroed
			le.PutUint16(d[0x10:], 2) // directories
		} else if l.lastGroup(g) {
			flags &^= blocksUninit
		}
		le.PutUint16(d[0x0e:], uint16(inodes))
		le.PutUint16(d[0x12:], flags)
		le.PutUint16(d[0x1c:], uint16(inodes)) // never used
		sum := crc16(math.MaxUint16, o.UUID[:])
		sum = crc16(sum, le.AppendUint32(nil, g))
		le.PutUint16(d[0x1e:], crc16(sum, d[:0x1e]))
	}
	return b
}

// crc16 is the kernel's lib/crc16.c: polynomial 0x8005, reflected.
func crc16(crc uint16, p []byte) uint16 {
	for _, c := range p {
		crc ^= uint16(c)
		for range 8 {
			crc = crc>>1 ^ 0xa001*(crc&1)
		}
	}
	return crc
}

func (l *layout) blockBitmap(group uint32) []byte {
	b := make([]byte, blockSize)
	setBits(b, 0, l.used(group))
	setBits(b, l.size(group), blocksPerGroup) // beyond the end
	return b
}

func (l *layout) inodeBitmap() []byte {
	b := make([]byte, blockSize)
	setBits(b, 0, usedInodes)
	setBits(b, l.inodesPerGroup, blockSize*8)
	return b
}

func setBits(b []byte, from, to uint32) {
	for i := from; i < to; i++ {
		b[i/8] |= 1 << (i % 8)
	}
}

// inodeTable is the table's first block, which holds all inodes in use.
func (l *layout) inodeTable(o Options) []byte {
	b := make([]byte, blockSize)
	put := func(number int, mode, links uint16, size uint32, extent []byte) {
		i := b[(number-1)*inodeSize:][:inodeSize]
		now := seconds(o.Time)
		le.PutUint16(i[0x00:], mode)
		le.PutUint32(i[0x04:], size)
		for _, at := range []int{0x08, 0x0c, 0x10, 0x90} { // access, change, modification, creation
			le.PutUint32(i[at:], now)
		}
		le.PutUint16(i[0x1a:], links)
		le.PutUint32(i[0x1c:], size/512)
		le.PutUint32(i[0x20:], 0x80000) // extents
		copy(i[0x28:], extent)
		le.PutUint16(i[0x80:], extraInodeSize)
	}
	put(rootInode, 0o40755, 3, blockSize, extent(l.rootBlock(), 1))
	put(journalInode, 0o100600, 1, l.journalBlocks*blockSize, l.journalExtent())
	put(firstInode, 0o40700, 2, blockSize, extent(l.lostBlock(), 1))
	return b
}

func (l *layout) journalExtent() []byte { return extent(l.journalBlock(), uint16(l.journalBlocks)) }

// extent is an inode's map of one run of blocks.
func extent(start uint32, blocks uint16) []byte {
	b := make([]byte, 60)
	le.PutUint16(b[0:], 0xf30a)
	le.PutUint16(b[2:], 1) // one entry
	le.PutUint16(b[4:], 4) // of four that fit
	le.PutUint16(b[16:], blocks)
	le.PutUint32(b[20:], start)
	return b
}

type entry struct {
	inode uint32
	name  string
}

// directory is a block of a directory that has directories only.
func directory(entries ...entry) []byte {
	b := make([]byte, blockSize)
	at := 0
	for i, e := range entries {
		length := 8 + (len(e.name)+3)/4*4
		if i == len(entries)-1 {
			length = blockSize - at
		}
		le.PutUint32(b[at:], e.inode)
		le.PutUint16(b[at+4:], uint16(length))
		b[at+6], b[at+7] = byte(len(e.name)), 2
		copy(b[at+8:], e.name)
		at += length
	}
	return b
}

// journalSuperblock is that of the kernel's include/linux/jbd2.h: an empty log.
func (l *layout) journalSuperblock(o Options) []byte {
	b := make([]byte, blockSize)
	for i, v := range []uint32{0xc03b3998, 4, 0, blockSize, l.journalBlocks, 1, 1, 0} {
		be.PutUint32(b[4*i:], v)
	}
	copy(b[0x30:], o.UUID[:])
	be.PutUint32(b[0x40:], 1) // users
	return b
}
