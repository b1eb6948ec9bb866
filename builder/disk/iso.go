package disk

import (
	"fmt"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/abdul-abdi/lumina/runtime/fat"
	"github.com/abdul-abdi/lumina/runtime/image"
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
	isoFile = 32 // the image's root; the EFI system partition is behind it, to the end
)

// writeISO writes an ISO 9660 file system (ECMA-119) with an El Torito entry for
// EFI, which is the EFI system partition, and the image's root as a file. What
// is written goes into memory.
func (e *export) writeISO(esp *fat.Volume) error {
	root := e.imageFile(image.Rootfs)
	if root.Size > maxISOFile {
		return fmt.Errorf("a root of %d bytes does not fit in an ISO, whose files have at most %d; export a disk", root.Size, int64(maxISOFile))
	}
	espStart := (isoFile*isoSector + root.Size + mib - 1) / mib * mib
	size := (espStart + esp.Size + (1+gptTable)*sector + mib - 1) / mib * mib
	c, err := newRaw(e.file, size)
	if err != nil {
		return err
	}
	if err := writeGPT(c, size, e.guid("disk"), []partition{
		{kind: gpt.EFISystemPartition, id: e.guid("esp"), name: "boot-" + e.shortID(), start: espStart, size: esp.Size},
	}); err != nil {
		return err
	}
	for _, part := range []struct {
		at int64 // sector
		b  []byte
	}{
		{isoVolume, isoVolumeDescriptor(e.volumeID(), size)},
		{isoBoot, isoBootRecord()},
		{isoTerminator, []byte("\xffCD001\x01")},
		{isoPathLittle, []byte{1, 0, isoRoot, 0, 0, 0, 1, 0, 0, 0}},
		{isoPathBig, []byte{1, 0, 0, 0, 0, isoRoot, 0, 1, 0, 0}},
		{isoRoot, isoDirectory(root.Size)},
		{isoCatalog, isoBootCatalog(uint32(espStart / isoSector))},
	} {
		if _, err := c.WriteAt(part.b, part.at*isoSector); err != nil {
			return err
		}
	}
	if err := e.copy(&section{c, isoFile * isoSector}, 0, root); err != nil {
		return err
	}
	if err := esp.Write(&section{c, espStart}, e.copy); err != nil {
		return err
	}
	return c.finish()
}

// volumeID is how the guest finds the ISO: by the name of the volume, which
// has upper-case letters, digits and "_".
func (e *export) volumeID() string { return "LUMINA_" + strings.ToUpper(e.shortID()) }

// both appends a number in both byte orders.
func both32(b []byte, v uint32) []byte { return be.AppendUint32(le.AppendUint32(b, v), v) }
func both16(b []byte, v uint16) []byte { return be.AppendUint16(le.AppendUint16(b, v), v) }

func isoVolumeDescriptor(id string, size int64) []byte {
	b := make([]byte, 0, isoSector)
	b = append(b, "\x01CD001\x01\x00"...)
	b = append(b, fmt.Sprintf("%-32s%-32s", "", id)...)
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

func isoBootCatalog(esp uint32) []byte {
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
	le.PutUint32(b[40:], esp)
	return b
}

func isoDirectory(rootSize int64) []byte {
	b := isoEntry("\x00", isoRoot, isoSector, true)
	b = append(b, isoEntry("\x01", isoRoot, isoSector, true)...)
	b = append(b, isoEntry("BOOT.CAT;1", isoCatalog, isoSector, false)...)
	return append(b, isoEntry("ROOT.IMG;1", isoFile, uint32(rootSize), false)...)
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
