package disk

import "os"

// vhd is a dynamic disk of Microsoft's "Virtual Hard Disk Image Format
// Specification": blocks of 2 MiB in the order in which they were written first.
// The file has holes where a block has zeroes.
type vhd struct {
	f      *os.File
	footer []byte
	blocks []uint32 // the sector of each block's bitmap; vhdUnused: none
	next   int64    // first byte that is free
}

const (
	vhdBlock  = 2 * mib
	vhdBitmap = sector // one bit a sector
	vhdUnused = 0xffffffff
)

func newVHD(f *os.File, size int64, id [16]byte) (*vhd, error) {
	v := &vhd{f: f, blocks: make([]uint32, (size+vhdBlock-1)/vhdBlock)}
	for i := range v.blocks {
		v.blocks[i] = vhdUnused
	}
	v.next = (3*sector + int64(len(v.blocks))*4 + sector - 1) / sector * sector
	v.footer = vhdFooter(size, id, 3)
	return v, nil
}

// vhdFooter describes a disk; kind is 2 for a fixed one, 3 for a dynamic one.
func vhdFooter(size int64, id [16]byte, kind uint32) []byte {
	b := make([]byte, sector)
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)        // reserved, always set
	be.PutUint32(b[12:], 0x10000) // version
	if kind == 2 {
		be.PutUint64(b[16:], 0xffffffffffffffff)
	} else {
		be.PutUint64(b[16:], sector) // of the header
	}
	// By its maker a reader decides whether the size below counts or the
	// geometry, which cannot say every size.
	copy(b[28:], "win \x00\x06\x00\x01Wi2k")
	be.PutUint64(b[40:], uint64(size))
	be.PutUint64(b[48:], uint64(size))
	cylinders, heads, sectors := vhdGeometry(size / sector)
	be.PutUint16(b[56:], cylinders)
	b[58], b[59] = heads, sectors
	be.PutUint32(b[60:], kind)
	copy(b[68:], id[:])
	be.PutUint32(b[64:], vhdChecksum(b))
	return b
}

// vhdGeometry is the calculation of the specification's appendix.
func vhdGeometry(total int64) (cylinders uint16, heads, perTrack byte) {
	total = min(total, 65535*16*255)
	if total >= 65535*16*63 {
		return uint16(total / 255 / 16), 16, 255
	}
	track, head := int64(17), int64(0)
	head = max((total/track+1023)/1024, 4)
	if total/track >= head*1024 || head > 16 {
		track, head = 31, 16
	}
	if total/track >= head*1024 {
		track, head = 63, 16
	}
	return uint16(total / track / head), byte(head), byte(track)
}

func vhdChecksum(b []byte) uint32 {
	var sum uint32
	for _, x := range b {
		sum += uint32(x)
	}
	return ^sum
}

// WriteAt writes pieces of 64 KiB, so that zeroes become holes.
func (v *vhd) WriteAt(p []byte, at int64) (int, error) {
	return writePieces(p, at, 64<<10, v.writePiece)
}

func (v *vhd) writePiece(p []byte, at int64) (int, error) {
	block := &v.blocks[at/vhdBlock]
	if *block == vhdUnused {
		bitmap := make([]byte, vhdBitmap)
		for i := range bitmap {
			bitmap[i] = 0xff
		}
		if _, err := v.f.WriteAt(bitmap, v.next); err != nil {
			return 0, err
		}
		*block = uint32(v.next / sector)
		v.next += vhdBitmap + vhdBlock
	}
	return v.f.WriteAt(p, int64(*block)*sector+vhdBitmap+at%vhdBlock)
}

func (v *vhd) finish() error {
	header := make([]byte, 2*sector)
	copy(header, "cxsparse")
	be.PutUint64(header[8:], 0xffffffffffffffff)
	be.PutUint64(header[16:], 3*sector) // of the table of blocks
	be.PutUint32(header[24:], 0x10000)
	be.PutUint32(header[28:], uint32(len(v.blocks)))
	be.PutUint32(header[32:], vhdBlock)
	be.PutUint32(header[36:], vhdChecksum(header))
	table := make([]byte, 0, 4*len(v.blocks)+sector)
	for _, b := range v.blocks {
		table = be.AppendUint32(table, b)
	}
	for len(table)%sector != 0 {
		table = append(table, 0xff)
	}
	for _, part := range []struct {
		at int64
		b  []byte
	}{{0, v.footer}, {sector, header}, {3 * sector, table}, {v.next, v.footer}} {
		if _, err := v.f.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	return nil
}

func (*vhd) Close() error { return nil }
