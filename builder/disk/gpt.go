package disk

import (
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Types of partitions, as they are on disk: the first three fields of a GUID
// are little-endian there (UEFI specification, 5.3.3).
var (
	// C12A7328-F81F-11D2-BA4B-00A0C93EC93B
	typeESP = [16]byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	// 0FC63DAF-8483-4772-8E79-3D69D8477DE4: Linux, any file system
	typeLinux = [16]byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}
)

type partition struct {
	kind, id    [16]byte
	name        string
	start, size int64 // bytes, multiples of a sector
}

const (
	gptEntries = 128
	gptTable   = gptEntries * 128 / sector // sectors
)

// writeGPT writes the partition table of a disk of size bytes and its copy, and
// an MBR that says so (UEFI specification, 5.2 and 5.3).
func writeGPT(w io.WriterAt, size int64, id [16]byte, parts []partition) error {
	last := size/sector - 1
	mbr := make([]byte, sector)
	copy(mbr[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(mbr[446+12:], uint32(min(last, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa

	table := make([]byte, gptTable*sector)
	for i, p := range parts {
		entry := table[i*128:]
		copy(entry, p.kind[:])
		copy(entry[16:], p.id[:])
		le.PutUint64(entry[32:], uint64(p.start/sector))
		le.PutUint64(entry[40:], uint64((p.start+p.size)/sector-1))
		for j, c := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(entry[56+2*j:], c)
		}
	}
	header := func(here, other, tableAt int64) []byte {
		b := make([]byte, sector)
		copy(b, "EFI PART")
		le.PutUint32(b[8:], 0x10000) // revision
		le.PutUint32(b[12:], 92)     // size of the header
		le.PutUint64(b[24:], uint64(here))
		le.PutUint64(b[32:], uint64(other))
		le.PutUint64(b[40:], 2+gptTable)
		le.PutUint64(b[48:], uint64(last-1-gptTable))
		copy(b[56:], id[:])
		le.PutUint64(b[72:], uint64(tableAt))
		le.PutUint32(b[80:], gptEntries)
		le.PutUint32(b[84:], 128)
		le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
		return b
	}
	for _, part := range []struct {
		at int64 // sector
		b  []byte
	}{
		{0, mbr}, {1, header(1, last, 2)}, {2, table},
		{last - gptTable, table}, {last, header(last, 1, last-gptTable)},
	} {
		if _, err := w.WriteAt(part.b, part.at*sector); err != nil {
			return err
		}
	}
	return nil
}
