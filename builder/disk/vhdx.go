package disk

import (
	"hash/crc32"
	"os"
	"unicode/utf16"

	"github.com/google/uuid"
)

// vhdx is a dynamic disk of Microsoft's [MS-VHDX]: blocks in the order in which they
// were written first. Nothing is in its log.
type vhdx struct {
	f      *os.File
	size   int64
	id     [16]byte
	blocks []int64 // where each is, in bytes; 0: nowhere
	next   int64
}

const (
	vhdxBlock = 2 * mib
	// vhdxChunk is how many blocks share an entry for their bitmap: 2^23 sectors.
	vhdxChunk    = 1 << 23 * sector / vhdxBlock
	vhdxLog      = 1 * mib
	vhdxMetadata = 2 * mib
	vhdxTable    = 3 * mib // of the blocks
	vhdxPresent  = 6       // PAYLOAD_BLOCK_FULLY_PRESENT
)

// The GUIDs of MS-VHDX, 2.2.3.2 and 2.6.2, as they are on disk.
var (
	vhdxRegionTable    = guidLE("2DC27766-F623-4200-9D64-115E9BFD4A08")
	vhdxRegionMetadata = guidLE("8B7CA206-4790-4B9A-B8FE-575F050F886E")
	vhdxParameters     = guidLE("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
	vhdxSize           = guidLE("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
	vhdxPage83         = guidLE("BECA12AB-B2E6-4523-93EF-C309E000C746")
	vhdxLogicalSector  = guidLE("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
	vhdxPhysicalSector = guidLE("CDA348C7-445D-4471-9CC9-E9885251C556")
)

func newVHDX(f *os.File, size int64, id [16]byte) (*vhdx, error) {
	v := &vhdx{f: f, size: size, id: id, blocks: make([]int64, (size+vhdxBlock-1)/vhdxBlock)}
	v.next = vhdxTable + v.tableSize()
	return v, nil
}

// tableSize is that of the table of blocks, with the entries for bitmaps, which
// only a disk with a parent has, in bytes.
func (v *vhdx) tableSize() int64 {
	n := int64(len(v.blocks))
	return (8*(n+(n-1)/vhdxChunk) + mib - 1) / mib * mib
}

// WriteAt writes pieces of 64 KiB, so that zeroes become holes.
func (v *vhdx) WriteAt(p []byte, at int64) (int, error) {
	return writePieces(p, at, 64<<10, v.writePiece)
}

func (v *vhdx) writePiece(p []byte, at int64) (int, error) {
	block := &v.blocks[at/vhdxBlock]
	if *block == 0 {
		*block, v.next = v.next, v.next+vhdxBlock
	}
	return v.f.WriteAt(p, *block+at%vhdxBlock)
}

func (v *vhdx) finish() error {
	identifier := make([]byte, 64<<10)
	copy(identifier, "vhdxfile")
	for i, c := range utf16.Encode([]rune("lumina")) {
		le.PutUint16(identifier[8+2*i:], c)
	}
	header := func(sequence uint64) []byte {
		b := make([]byte, 64<<10)
		copy(b, "head")
		le.PutUint64(b[8:], sequence)
		copy(b[16:], v.id[:]) // changes with each opening
		copy(b[32:], v.id[:]) // changes with what is in it
		le.PutUint16(b[66:], 1)
		le.PutUint32(b[68:], mib) // the log
		le.PutUint64(b[72:], vhdxLog)
		return sumVHDX(b, 4<<10)
	}
	regions := make([]byte, 64<<10)
	copy(regions, "regi")
	le.PutUint32(regions[8:], 2)
	for i, r := range []struct {
		id       [16]byte
		at, size int64
	}{{vhdxRegionTable, vhdxTable, v.tableSize()}, {vhdxRegionMetadata, vhdxMetadata, mib}} {
		b := regions[16+32*i:]
		copy(b, r.id[:])
		le.PutUint64(b[16:], uint64(r.at))
		le.PutUint32(b[24:], uint32(r.size))
		le.PutUint32(b[28:], 1) // required
	}
	sumVHDX(regions, len(regions))
	table := make([]byte, v.tableSize())
	for i, at := range v.blocks {
		if at != 0 {
			le.PutUint64(table[8*(i+i/vhdxChunk):], uint64(at)|vhdxPresent)
		}
	}
	for _, part := range []struct {
		at int64
		b  []byte
	}{
		{0, identifier}, {64 << 10, header(1)}, {128 << 10, header(2)}, {192 << 10, regions}, {256 << 10, regions},
		{vhdxMetadata, v.metadata()}, {vhdxTable, table},
	} {
		if _, err := v.f.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	return v.f.Truncate(v.next)
}

// metadata is a table of items, and they.
func (v *vhdx) metadata() []byte {
	const values = 64 << 10
	b := make([]byte, values+4<<10)
	copy(b, "metadata")
	at := values
	items := []struct {
		id    [16]byte
		disk  bool // it is of the disk, not of the file
		value []byte
	}{
		{vhdxParameters, false, le.AppendUint32(le.AppendUint32(nil, vhdxBlock), 0)},
		{vhdxSize, true, le.AppendUint64(nil, uint64(v.size))},
		{vhdxPage83, true, v.id[:]},
		{vhdxLogicalSector, true, le.AppendUint32(nil, sector)},
		{vhdxPhysicalSector, true, le.AppendUint32(nil, 4096)},
	}
	le.PutUint16(b[10:], uint16(len(items)))
	for i, item := range items {
		e := b[32+32*i:]
		copy(e, item.id[:])
		le.PutUint32(e[16:], uint32(at))
		le.PutUint32(e[20:], uint32(len(item.value)))
		flags := uint32(4) // required
		if item.disk {
			flags |= 2
		}
		le.PutUint32(e[24:], flags)
		at += copy(b[at:], item.value)
	}
	return b
}

// sumVHDX sets the checksum of a structure of n bytes.
func sumVHDX(b []byte, n int) []byte {
	le.PutUint32(b[4:], 0)
	le.PutUint32(b[4:], crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// guidLE is how Microsoft's formats have a GUID: its first three numbers little-endian.
func guidLE(s string) [16]byte {
	g := [16]byte(uuid.MustParse(s))
	return [16]byte{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

func (*vhdx) Close() error { return nil }
