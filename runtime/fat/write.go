package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// File is what goes into a Volume. Names are the upper-case 8.3 ones of FAT, for which
// case does not matter: no long names are needed.
type File struct {
	Dir, Name string // Dir: parts separated by slashes
	Size      int64
	Open      func() (io.ReadCloser, error)
}

// Volume is a FAT32 file system that is about to be written, full of files that lie one
// behind the other.
type Volume struct {
	Size       int64 // bytes
	cluster    int64 // bytes
	clusters   int64
	fatSectors int64
	number     uint32 // of the volume
	chains     []placed
}

// placed is a file or directory in its place.
type placed struct {
	first, count int64 // clusters
	dir          []byte
	file         *File
}

var le = binary.LittleEndian

const (
	sector = 512
	mib    = 1 << 20

	fatReserved   = 32 // sectors before the first FAT
	fatEnd        = 0x0fffffff
	fatDirectory  = 0x10
	fatVolume     = 0x08
	fatDate       = 1<<5 | 1 // the first day that FAT knows, 1980-01-01
	minFATSize    = 64 * mib // FAT32 is what has at least 65525 clusters
	fatSmallLimit = 256 * mib
)

// LayOut finds each file its place in a volume of that number.
func LayOut(files []File, number uint32) (*Volume, error) {
	v := &Volume{Size: 4 * mib, cluster: sector, number: number}
	for _, f := range files {
		if f.Size < 0 || f.Size > math.MaxUint32 {
			return nil, fmt.Errorf("%s of %d bytes: FAT has files of at most 4 GiB", f.Name, f.Size)
		}
		v.Size += f.Size
	}
	if v.Size > fatSmallLimit {
		v.cluster = 8 * sector
		v.Size = max(v.Size, 2*fatSmallLimit)
	}
	v.Size += v.Size / 32 // for the FATs
	v.Size = max((v.Size+mib-1)/mib*mib, minFATSize)
	sectors, perCluster := v.Size/sector, v.cluster/sector
	v.fatSectors = (sectors/perCluster + 2 + 127) / 128
	v.clusters = (sectors - fatReserved - 2*v.fatSectors) / perCluster

	root := &directory{name: "/"}
	for i := range files {
		f := &files[i]
		d := root
		for _, part := range strings.Split(f.Dir, "/") {
			d = d.sub(part)
		}
		d.files = append(d.files, f)
	}
	next := int64(2)
	v.place(root, 0, &next)
	if next > v.clusters+2 {
		return nil, errors.New("the files do not fit in the EFI system partition")
	}
	return v, nil
}

type directory struct {
	name  string
	dirs  []*directory
	files []*File
}

func (d *directory) sub(name string) *directory {
	for _, s := range d.dirs {
		if s.name == name {
			return s
		}
	}
	s := &directory{name: name}
	d.dirs = append(d.dirs, s)
	return s
}

// place gives a directory and what is in it clusters and returns its first.
// Directories have one cluster: 16 entries are more than there are.
func (v *Volume) place(d *directory, parent int64, next *int64) int64 {
	here := *next
	*next++
	c := len(v.chains)
	v.chains = append(v.chains, placed{first: here, count: 1})
	var b []byte
	if parent == 0 {
		b = fatEntry(b, "LUMINA", fatVolume, 0, 0)
	} else {
		if parent == 2 {
			parent = 0 // how FAT writes the root there
		}
		b = fatEntry(b, ".", fatDirectory, here, 0)
		b = fatEntry(b, "..", fatDirectory, parent, 0)
	}
	for _, s := range d.dirs {
		b = fatEntry(b, s.name, fatDirectory, v.place(s, here, next), 0)
	}
	for _, f := range d.files {
		count := (f.Size + v.cluster - 1) / v.cluster
		first := *next
		if count == 0 {
			first = 0
		}
		*next += count
		v.chains = append(v.chains, placed{first: first, count: count, file: f})
		b = fatEntry(b, f.Name, 0x20, first, f.Size)
	}
	v.chains[c].dir = b
	return here
}

// fatEntry appends a directory entry.
func fatEntry(b []byte, name string, attributes byte, cluster, size int64) []byte {
	var e [32]byte
	base, extension := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 && name != ".." {
		base, extension = name[:i], name[i+1:]
	}
	copy(e[:], fmt.Sprintf("%-8.8s%-3.3s", base, extension))
	e[11] = attributes
	for _, at := range []int{16, 18, 24} { // made, read, written
		le.PutUint16(e[at:], fatDate)
	}
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], uint32(size))
	return append(b, e[:]...)
}

// Write writes the volume. copyFile writes the content of a file at an offset.
func (v *Volume) Write(w io.WriterAt, copyFile func(io.WriterAt, int64, File) error) error {
	table := make([]byte, v.fatSectors*sector)
	le.PutUint32(table, 0x0ffffff8)
	le.PutUint32(table[4:], fatEnd)
	used := int64(0)
	for _, c := range v.chains {
		used += c.count
		for i := c.first; i < c.first+c.count-1; i++ {
			le.PutUint32(table[4*i:], uint32(i+1))
		}
		if c.count > 0 {
			le.PutUint32(table[4*(c.first+c.count-1):], fatEnd)
		}
	}
	boot, info := v.bootSector(), make([]byte, sector)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], uint32(v.clusters-used))
	le.PutUint32(info[492:], uint32(used+2))
	info[510], info[511] = 0x55, 0xaa
	for _, part := range []struct {
		at int64 // sector
		b  []byte
	}{
		{0, boot}, {1, info}, {6, boot}, {7, info},
		{fatReserved, table}, {fatReserved + v.fatSectors, table},
	} {
		if _, err := w.WriteAt(part.b, part.at*sector); err != nil {
			return err
		}
	}
	for _, c := range v.chains {
		at := (fatReserved+2*v.fatSectors)*sector + (c.first-2)*v.cluster
		if c.file != nil {
			if err := copyFile(w, at, *c.file); err != nil {
				return err
			}
		} else if _, err := w.WriteAt(c.dir, at); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) bootSector() []byte {
	b := make([]byte, sector)
	copy(b, "\xeb\x58\x90LUMINA  ")
	le.PutUint16(b[11:], sector)
	b[13] = byte(v.cluster / sector)
	le.PutUint16(b[14:], fatReserved)
	b[16] = 2    // FATs
	b[21] = 0xf8 // a fixed disk
	le.PutUint16(b[24:], 32)
	le.PutUint16(b[26:], 64)
	le.PutUint32(b[32:], uint32(v.Size/sector))
	le.PutUint32(b[36:], uint32(v.fatSectors))
	le.PutUint32(b[44:], 2) // the root's cluster
	le.PutUint16(b[48:], 1) // sector of the free count
	le.PutUint16(b[50:], 6) // sector of the copy of this
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], v.number)
	copy(b[71:], "LUMINA     FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}
