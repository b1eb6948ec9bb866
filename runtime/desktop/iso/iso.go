// Package iso looks into installation media without mounting them: which
// machines an image boots on, and its kernel.
//
// Formats: ISO 9660 (ECMA-119) with Rock Ridge names (RRIP 1.12), presence of
// UDF (ECMA-167), El Torito boot catalogs (specification 1.0), the FAT of an
// EFI boot image and the header of a PE program.
//
// An image is whatever somebody downloaded: all of it is taken for hostile. The
// reader follows one path at a time, reads nothing whose size it has not
// bounded, and goes no way that has no end. go-diskfs, which reads ISO 9660,
// allocates what the image says, before it is read: up to 4 GiB for a path
// table or a directory.
package iso

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

const (
	sector = 2048
	// firstDescriptor is the sector of the first volume descriptor.
	firstDescriptor = 16
	maxDescriptors  = 64
	maxDirectory    = 1 << 20 // bytes
)

// ErrNotISO is wrapped when a file is none.
var ErrNotISO = errors.New("not an ISO 9660 image")

// Image is an installation ISO.
type Image struct {
	Volume    string `json:"volume"` // its label
	Publisher string `json:"publisher,omitempty"`
	UDF       bool   `json:"udf"`
	ElTorito  bool   `json:"elTorito"`
	// Loaders are the EFI programs that start it.
	Loaders []Loader `json:"loaders"`

	r    io.ReaderAt
	size int64
	root extent
}

// Loader is an EFI program.
type Loader struct {
	Arch string `json:"arch"` // of its PE header, in Go's name
	Path string `json:"path"`
	// Where it was found: "boot image", El Torito's, "file system", or a disk's
	// "EFI system partition".
	Where string `json:"where"`
}

// extent is a run of bytes of the image.
type extent struct {
	at, size int64
	dir      bool
}

// ReadFile looks at an image, which stays open as long as files of it are read.
func ReadFile(f *os.File) (*Image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a file", ErrNotISO)
	}
	return Read(f, info.Size())
}

// Read looks at an image of size bytes.
func Read(r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{r: r, size: size, Loaders: []Loader{}}
	catalog, err := i.readDescriptors()
	if err != nil {
		return nil, err
	}
	if catalog > 0 {
		i.readCatalog(catalog)
	}
	for _, name := range loaderNames {
		file, err := i.Open("/EFI/BOOT/" + name)
		if err != nil {
			continue
		}
		i.addLoader(file, "/EFI/BOOT/"+name, "file system")
	}
	return i, nil
}

// loaderNames are what firmware looks for on removable media (UEFI 2.10, 3.5.1.1).
var loaderNames = []string{"BOOTX64.EFI", "BOOTAA64.EFI", "BOOTIA32.EFI", "BOOTARM.EFI", "BOOTRISCV64.EFI"}

func (i *Image) addLoader(file io.ReaderAt, name, where string) {
	arch, err := machineOf(file)
	if err != nil {
		return
	}
	for _, l := range i.Loaders {
		if l.Arch == arch {
			return
		}
	}
	i.Loaders = append(i.Loaders, Loader{Arch: arch, Path: name, Where: where})
}

// Windows says whether this is an installer of Microsoft's.
func (i *Image) Windows() bool { return strings.Contains(strings.ToUpper(i.Publisher), "MICROSOFT") }

// Boots returns an error, with the architectures that it has, when the image
// does not boot on a machine with EFI firmware of this architecture.
func (i *Image) Boots(arch string) error {
	if len(i.Loaders) == 0 {
		return errors.New("it has no EFI loader: EFI firmware does not boot it")
	}
	var has []string
	for _, l := range i.Loaders {
		if l.Arch == arch {
			return nil
		}
		has = append(has, fmt.Sprintf("%s (%s)", l.Arch, path.Base(l.Path)))
	}
	return fmt.Errorf("it is for %s, the guest is %s", strings.Join(has, " and "), arch)
}

// readAt reads all of p or fails.
func (i *Image) readAt(p []byte, at int64) error {
	if at < 0 || at > i.size-int64(len(p)) {
		return io.ErrUnexpectedEOF
	}
	_, err := i.r.ReadAt(p, at)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readDescriptors reads the volume descriptors and returns where the boot
// catalog is; 0 when there is none.
func (i *Image) readDescriptors() (catalog int64, err error) {
	b := make([]byte, sector)
	primary := false
sequence:
	for n := range int64(maxDescriptors) {
		if err := i.readAt(b, (firstDescriptor+n)*sector); err != nil {
			break // an image may end here; what it lacks is said below
		}
		switch id := string(b[1:6]); {
		case id == "CD001" && b[0] == 0 && bytes.HasPrefix(b[7:], []byte("EL TORITO SPECIFICATION")):
			i.ElTorito = true
			catalog = int64(binary.LittleEndian.Uint32(b[0x47:])) * sector
		case id == "CD001" && b[0] == 1 && !primary:
			primary = true
			if err := i.readPrimary(b); err != nil {
				return 0, err
			}
		case id == "NSR02" || id == "NSR03": // ECMA-167, 3/9.1
			i.UDF = true
		case id == "CD001" || id == "BEA01" || id == "TEA01" || id == "BOOT2" || id == "CDW02":
		default:
			break sequence
		}
	}
	if primary {
		return catalog, nil
	}
	if i.size == 0 {
		return 0, fmt.Errorf("%w: it is empty", ErrNotISO)
	}
	if i.size < (firstDescriptor+1)*sector {
		return 0, fmt.Errorf("%w: %d bytes are too few", ErrNotISO, i.size)
	}
	return 0, fmt.Errorf("%w: it has no volume descriptor", ErrNotISO)
}

// readPrimary reads the primary volume descriptor (ECMA-119, 8.4).
func (i *Image) readPrimary(b []byte) error {
	i.Volume = text(b[40:72])
	i.Publisher = text(b[318:446])
	if n := binary.LittleEndian.Uint16(b[128:]); n != sector {
		return fmt.Errorf("%w: its blocks have %d bytes, not %d", ErrNotISO, n, sector)
	}
	if want := int64(binary.LittleEndian.Uint32(b[80:])) * sector; want > i.size {
		return fmt.Errorf("the image is truncated: it has %d of %d bytes", i.size, want)
	}
	i.root = extentOf(b[156:190])
	return nil
}

// text is what a field of a descriptor says, fit for a terminal.
func text(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(b)))
}

// extentOf reads a directory record (ECMA-119, 9.1) of 34 bytes or more.
func extentOf(record []byte) extent {
	return extent{
		at:   int64(binary.LittleEndian.Uint32(record[2:])) * sector,
		size: int64(binary.LittleEndian.Uint32(record[10:])),
		dir:  record[25]&2 != 0,
	}
}

// multiExtent is the flag of a record that is continued in the next one.
const multiExtent = 0x80

// Open opens a file by its path, whatever its names' case.
func (i *Image) Open(name string) (*io.SectionReader, error) {
	at := i.root
	for _, part := range strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if !at.dir {
			return nil, fmt.Errorf("%q: no such file in the image", name)
		}
		next, err := i.lookup(at, part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		at = next
	}
	if at.dir {
		return nil, fmt.Errorf("%q is a directory of the image", name)
	}
	if at.at > i.size || at.size > i.size-at.at {
		return nil, fmt.Errorf("%q lies beyond the image's end", name)
	}
	return io.NewSectionReader(i.r, at.at, at.size), nil
}

// lookup finds a name in a directory.
func (i *Image) lookup(dir extent, name string) (extent, error) {
	if dir.size > maxDirectory {
		return extent{}, fmt.Errorf("the directory is larger than %d bytes", maxDirectory)
	}
	b := make([]byte, sector)
	for done := int64(0); done < dir.size; done += sector {
		if err := i.readAt(b, dir.at+done); err != nil {
			return extent{}, err
		}
		// A record is within a sector; a length of 0 ends the sector.
		for rest := b; len(rest) > 0 && rest[0] >= 34 && int(rest[0]) <= len(rest); rest = rest[rest[0]:] {
			record := rest[:rest[0]]
			if !named(record, name) {
				continue
			}
			if record[25]&multiExtent != 0 {
				return extent{}, errors.New("it is in several pieces")
			}
			return extentOf(record), nil
		}
	}
	return extent{}, errors.New("no such file in the image")
}

// named says whether a directory record has a name: as ISO 9660 or Rock Ridge
// write it.
func named(record []byte, name string) bool {
	n := int(record[32])
	if 33+n > len(record) {
		return false
	}
	plain, _, _ := strings.Cut(string(record[33:33+n]), ";")
	if strings.EqualFold(strings.TrimSuffix(plain, "."), name) {
		return true
	}
	use := record[33+n:]
	if n%2 == 0 && len(use) > 0 {
		use = use[1:] // padded to an even length
	}
	// Entries of the system use area (SUSP, 5.1): signature, length, version.
	for len(use) >= 5 && int(use[2]) >= 4 && int(use[2]) <= len(use) {
		if string(use[:2]) == "NM" && use[2] > 5 && use[4]&1 == 0 {
			return strings.EqualFold(string(use[5:use[2]]), name)
		}
		use = use[use[2]:]
	}
	return false
}
