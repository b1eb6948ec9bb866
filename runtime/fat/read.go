package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reader reads files of a volume of FAT12, FAT16 or FAT32 by their short names.
type Reader struct {
	r           io.ReaderAt
	size        int64
	bits        int // 12, 16, 32
	table       int64
	root        int64 // of FAT12 and 16
	rootEntries int64
	rootCluster uint32 // of FAT32
	data        int64
	cluster     int64 // bytes
	clusters    uint32
}

// maxChain bounds how many clusters of a file or directory are followed.
const maxChain = 1 << 16

const maxDirectory = 1 << 20 // bytes

var errFAT = errors.New("not a FAT file system")

// NewReader opens a volume of so many bytes.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, errFAT
	}
	u16 := func(at int) int64 { return int64(le.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(le.Uint32(b[at:])) }
	bytesPer, perCluster, reserved, tables := u16(11), int64(b[13]), u16(14), int64(b[16])
	f := &Reader{r: r, size: size, rootEntries: u16(17), cluster: bytesPer * perCluster}
	sectors, tableSectors := u16(19), u16(22)
	if sectors == 0 {
		sectors = u32(32)
	}
	if tableSectors == 0 {
		tableSectors = u32(36)
	}
	switch {
	case b[510] != 0x55 || b[511] != 0xAA,
		bytesPer < 512 || bytesPer > 4096 || bytesPer&(bytesPer-1) != 0,
		perCluster == 0 || perCluster&(perCluster-1) != 0,
		reserved == 0, tables == 0, tables > 4, tableSectors == 0:
		return nil, errFAT
	}
	f.table = reserved * bytesPer
	f.root = f.table + tables*tableSectors*bytesPer
	f.data = f.root + (f.rootEntries*32+bytesPer-1)/bytesPer*bytesPer
	clusters := (sectors*bytesPer - f.data) / f.cluster
	if clusters < 1 || f.data >= size {
		return nil, errFAT
	}
	f.clusters = uint32(clusters)
	// The number of clusters is what tells the kinds apart.
	switch {
	case clusters < 4085:
		f.bits = 12
	case clusters < 65525:
		f.bits = 16
	default:
		f.bits, f.rootCluster = 32, uint32(u32(44))
	}
	return f, nil
}

// chain is a file's clusters.
type chain struct {
	f        *Reader
	clusters []uint32
	size     int64
}

// chain follows a file from its first cluster for up to size bytes.
func (f *Reader) chain(first uint32, size int64) (*chain, error) {
	c := &chain{f: f, size: size}
	for n := first; int64(len(c.clusters))*f.cluster < size; {
		if n < 2 || n-2 >= f.clusters || len(c.clusters) == maxChain {
			break
		}
		c.clusters = append(c.clusters, n)
		next, err := f.next(n)
		if err != nil {
			return nil, err
		}
		n = next
	}
	c.size = min(size, int64(len(c.clusters))*f.cluster)
	return c, nil
}

// next is the entry of a cluster in the table.
func (f *Reader) next(n uint32) (uint32, error) {
	var b [4]byte
	at, width := f.table+int64(n)*int64(f.bits)/8, (f.bits+7)/8
	if _, err := f.r.ReadAt(b[:width], at); err != nil {
		return 0, fmt.Errorf("reading the allocation table: %w", err)
	}
	v := le.Uint32(b[:])
	if f.bits == 12 {
		return v >> (n % 2 * 4) & 0xFFF, nil
	}
	return v & 0x0FFFFFFF, nil
}

// ReadAt is part of [io.ReaderAt].
func (c *chain) ReadAt(p []byte, at int64) (int, error) {
	done := 0
	for done < len(p) && at < c.size {
		within := at % c.f.cluster
		n := min(int64(len(p)-done), c.f.cluster-within, c.size-at)
		from := c.f.data + int64(c.clusters[at/c.f.cluster]-2)*c.f.cluster + within
		k, err := c.f.r.ReadAt(p[done:done+int(n)], from)
		done, at = done+k, at+int64(k)
		if int64(k) < n {
			return done, err
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// Open opens a file by the short names of its path.
func (f *Reader) Open(names ...string) (io.ReaderAt, error) {
	var dir io.ReaderAt = io.NewSectionReader(f.r, f.root, f.rootEntries*32)
	if f.bits == 32 {
		root, err := f.chain(f.rootCluster, maxDirectory)
		if err != nil {
			return nil, err
		}
		dir = root
	}
	for depth, name := range names {
		entry, err := findEntry(dir, name)
		if err != nil {
			return nil, err
		}
		last := depth == len(names)-1
		if isDir := entry[11]&0x10 != 0; isDir == last {
			return nil, fmt.Errorf("%q is of another kind", name)
		}
		first := uint32(le.Uint16(entry[26:]))
		if f.bits == 32 {
			first |= uint32(le.Uint16(entry[20:])) << 16
		}
		size := int64(maxDirectory)
		if last {
			size = int64(le.Uint32(entry[28:]))
		}
		if dir, err = f.chain(first, size); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

// findEntry finds a short name in a directory.
func findEntry(dir io.ReaderAt, name string) ([]byte, error) {
	base, extension, _ := strings.Cut(name, ".")
	want := []byte(fmt.Sprintf("%-8s%-3s", base, extension))
	entry := make([]byte, 32)
	for at := int64(0); at < maxDirectory; at += 32 {
		if _, err := dir.ReadAt(entry, at); err != nil || entry[0] == 0 {
			break
		}
		// 0x08: a volume's label, or a part of a long name.
		if entry[11]&0x08 == 0 && bytes.Equal(entry[:11], want) {
			return entry, nil
		}
	}
	return nil, fmt.Errorf("%q is not there", name)
}
