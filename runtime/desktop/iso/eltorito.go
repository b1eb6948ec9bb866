package iso

import (
	"encoding/binary"
	"io"

	"github.com/abdul-abdi/lumina/runtime/fat"
)

// An entry of a boot catalog has 32 bytes.
const (
	entrySize    = 32
	bootable     = 0x88
	sectionMore  = 0x90
	sectionFinal = 0x91
)

// readCatalog looks for EFI loaders in the boot images of an El Torito catalog.
// Every image that is a FAT is looked at, whatever platform it says it is for:
// some say nothing.
func (i *Image) readCatalog(at int64) {
	b := make([]byte, sector)
	if i.readAt(b, at) != nil || b[0] != 1 || b[30] != 0x55 || b[31] != 0xAA {
		return
	}
	for n := entrySize; n < len(b); n += entrySize {
		entry := b[n : n+entrySize]
		switch entry[0] {
		case bootable:
			i.readBootImage(int64(binary.LittleEndian.Uint32(entry[8:])) * sector)
		case sectionMore, sectionFinal, 0: // what follows has a header or is not bootable
		}
	}
}

// readBootImage looks for EFI loaders in a file system at an offset. The length
// that a catalog gives is often wrong: the file system knows its own.
func (i *Image) readBootImage(at int64) {
	if at <= 0 || at >= i.size {
		return
	}
	i.addFAT(at, i.size-at, "boot image")
}

// addFAT adds the loaders of a FAT file system.
func (i *Image) addFAT(at, size int64, where string) {
	fs, err := fat.NewReader(io.NewSectionReader(i.r, at, size), size)
	if err != nil {
		return
	}
	for _, name := range loaderNames {
		// "BOOTRISCV64" has no short name, and its guests no machine here.
		if len(name) > 12 {
			continue
		}
		if file, err := fs.Open("EFI", "BOOT", name); err == nil {
			i.addLoader(file, "/EFI/BOOT/"+name, where)
		}
	}
}
