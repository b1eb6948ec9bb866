package disk

import (
	"fmt"
	"io"
	"strings"
)

const isoSector = 2048

// Sectors of an ISO. The first sixteen are free for a partition table: the same
// file is a disk, for those who write it on a USB stick.
const (
	isoVolume = 16 + iota
	isoBoot
	isoTerminator
	isoPathLittle
	isoPathBig
	isoRoot
	isoCatalog
	isoESP = 32 // to the end, aligned for disks of 4 KiB sectors
)

// writeISO writes an ISO 9660 file system (ECMA-119) with an El Torito entry for
// EFI, which is the EFI system partition. The kernel has no need of the medium:
// the root is in memory, with what is written.
func (e *export) writeISO(esp *fat) error {
	end := isoESP*isoSector + esp.size
	size := (end + (1+gptTable)*sector + mib - 1) / mib * mib
	c, err := newRaw(e.file, size)
	if err != nil {
		return err
	}
	if err := writeGPT(c, size, e.guid("disk"), []partition{
		{kind: typeESP, id: e.guid("esp"), name: "boot-" + e.shortID(), start: isoESP * isoSector, size: esp.size},
	}); err != nil {
		return err
	}
	for _, part := range []struct {
		at int64 // sector
		b  []byte
	}{
		{isoVolume, isoVolumeDescriptor(size)},
		{isoBoot, isoBootRecord()},
		{isoTerminator, []byte("\xffCD001\x01")},
		{isoPathLittle, []byte{1, 0, isoRoot, 0, 0, 0, 1, 0, 0, 0}},
		{isoPathBig, []byte{1, 0, 0, 0, 0, isoRoot, 0, 1, 0, 0}},
		{isoRoot, isoDirectory(esp.size)},
		{isoCatalog, isoBootCatalog()},
	} {
		if _, err := c.WriteAt(part.b, part.at*isoSector); err != nil {
			return err
		}
	}
	if err := esp.write(&section{c, isoESP * isoSector}, e.copy); err != nil {
		return err
	}
	return c.finish()
}

// both appends a number in both byte orders.
func both32(b []byte, v uint32) []byte { return be.AppendUint32(le.AppendUint32(b, v), v) }
func both16(b []byte, v uint16) []byte { return be.AppendUint16(le.AppendUint16(b, v), v) }

func isoVolumeDescriptor(size int64) []byte {
	b := make([]byte, 0, isoSector)
	b = append(b, "\x01CD001\x01\x00"...)
	b = append(b, fmt.Sprintf("%-32s%-32s", "", "LUMINA")...)
	b = append(b, make([]byte, 8)...)
	b = both32(b, uint32(size/isoSector))
	b = append(b, make([]byte, 32)...)
	b = both16(b, 1) // volumes
	b = both16(b, 1) // this one's number
	b = both16(b, isoSector)
	b = both32(b, 10) // bytes of the path table
	b = le.AppendUint32(b, isoPathLittle)
	b = le.AppendUint32(b, 0)
	b = be.AppendUint32(b, isoPathBig)
	b = be.AppendUint32(b, 0)
	b = append(b, isoEntry("\x00", isoRoot, isoSector, true)...)
	b = append(b, strings.Repeat(" ", 813-190)...) // names of people and files
	for range 4 {                                  // no times
		b = append(b, "0000000000000000\x00"...)
	}
	return append(b, 1)
}

// isoBootRecord says where the catalog is ("El Torito" Bootable CD-ROM Format
// Specification, 2.0).
func isoBootRecord() []byte {
	b := make([]byte, 71, 75)
	copy(b, "\x00CD001\x01EL TORITO SPECIFICATION")
	return le.AppendUint32(b, isoCatalog)
}

func isoBootCatalog() []byte {
	b := make([]byte, 64)
	b[0], b[1] = 1, 0xef // for EFI
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(b[i:])
	}
	le.PutUint16(b[28:], -sum)
	b[32] = 0x88 // bootable, no emulation
	// The count of 512-byte sectors has 16 bits; 0 stands for all to the end.
	le.PutUint32(b[40:], isoESP)
	return b
}

func isoDirectory(espSize int64) []byte {
	b := isoEntry("\x00", isoRoot, isoSector, true)
	b = append(b, isoEntry("\x01", isoRoot, isoSector, true)...)
	b = append(b, isoEntry("BOOT.CAT;1", isoCatalog, isoSector, false)...)
	if espSize < 4<<30 { // larger ones have no entry; firmware needs none
		b = append(b, isoEntry("EFI.IMG;1", isoESP, uint32(espSize), false)...)
	}
	return b
}

func isoEntry(name string, at, size uint32, dir bool) []byte {
	b := []byte{byte((33 + len(name) + 1) &^ 1), 0}
	b = both32(b, at)
	b = both32(b, size)
	b = append(b, 80, 1, 1, 0, 0, 0, 0) // 1980-01-01
	flags := byte(0)
	if dir {
		flags = 2
	}
	b = append(b, flags, 0, 0)
	b = both16(b, 1)
	b = append(append(b, byte(len(name))), name...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	return b
}

// cpioFile is a file in an archive of its own, for the initramfs: the kernel
// takes several, one behind the other (the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst).
func cpioFile(name string, f file) (file, error) {
	if f.size > maxLiveRoot {
		return file{}, fmt.Errorf("a root of %d bytes does not fit in an ISO, which has it in memory; export a disk", f.size)
	}
	header := cpioHeader(name, 0o100644, f.size)
	pad := strings.Repeat("\x00", int(-f.size&3))
	trailer := pad + cpioHeader("TRAILER!!!", 0, 0)
	return file{
		dir: "LUMINA", name: "ROOT", size: int64(len(header)) + f.size + int64(len(trailer)),
		open: func() (io.ReadCloser, error) {
			r, err := f.open()
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.MultiReader(strings.NewReader(header), io.LimitReader(r, f.size), strings.NewReader(trailer)), r}, nil
		},
	}, nil
}

func cpioHeader(name string, mode uint32, size int64) string {
	h := "070701"
	for _, v := range []uint32{1, mode, 0, 0, 1, 0, uint32(size), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		h += fmt.Sprintf("%08x", v)
	}
	h += name + "\x00"
	return h + strings.Repeat("\x00", -len(h)&3)
}
