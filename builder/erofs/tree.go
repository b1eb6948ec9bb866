package erofs

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
)

// finisher places and writes what is known at the end only: directories, whose
// entries name the numbers of others, links and devices.
type finisher struct {
	w     *Writer
	seen  map[*Inode]bool // inodes with several names
	count uint32
	path  []string // of what is being placed
}

const direntSize = 12

// maxName is the longest name of an entry, in bytes.
const maxName = 255

// allocate places every inode below i that has no place yet, a directory
// before what it holds, so that listing one stays in few blocks.
func (f *finisher) allocate(i *Inode) error {
	if f.seen[i] {
		return nil
	}
	if !i.IsDir() && i.Links > 1 {
		f.seen[i] = true
	}
	f.count++
	xattrs, err := encodeXattrs(i.Xattrs)
	if err != nil {
		return err
	}
	i.xattrSize = int32(len(xattrs))
	switch i.Type() {
	case TypeRegular:
		if i.position == 0 { // AddFile was not called: an empty file
			return f.w.place(i, xattrs)
		}
		return nil
	case TypeDir:
		i.size = dirSize(sortedNames(i))
	case TypeSymlink:
		i.size = int64(len(i.Target))
		if i.size == 0 || i.size >= blockSize {
			return fmt.Errorf("symbolic link of %d bytes: %w", i.size, ErrTooLarge)
		}
	}
	if i.position == 0 || i.position == rootOffset {
		f.w.count++
		i.number = f.w.count
		if err := f.position(i, len(xattrs)); err != nil {
			return err
		}
	}
	if !i.IsDir() {
		return nil
	}
	for _, name := range f.childNames(i) {
		if len(name) > maxName {
			return fmt.Errorf("name of %d bytes: %w", len(name), ErrTooLarge)
		}
		f.path = append(f.path, name)
		if err := f.allocate(i.Entries[name]); err != nil {
			return err // the path stays as it is, for where
		}
		f.path = f.path[:len(f.path)-1]
	}
	return nil
}

// where names what allocate was about when it failed. It is put together once:
// wrapped at each level, the message of a deep tree takes gigabytes.
func (f *finisher) where() string {
	path := "/" + strings.Join(f.path, "/")
	if len(path) > maxName {
		path = "…" + path[len(path)-maxName:]
	}
	return path
}

// position decides where the data of a directory or link goes, inline where it
// fits, and gives the inode its place.
func (f *finisher) position(i *Inode, xattrs int) error {
	w := f.w
	tail := int(i.size % blockSize)
	room := blockSize
	if i.position == rootOffset {
		room -= rootOffset
	}
	if inodeSize+xattrs+tail > room {
		tail = 0
	}
	if i.size > 0 && tail > 0 {
		i.layout = flatInline
	}
	if blocks := uint32((i.size - int64(tail) + blockSize - 1) / blockSize); blocks > 0 {
		i.data = extent{w.next, blocks}
		w.next += blocks
	}
	i.bodySize = int32(xattrs + tail)
	if i.position == rootOffset {
		if inodeSize+xattrs > room {
			return fmt.Errorf("extended attributes of the root: %w", ErrTooLarge)
		}
		return nil
	}
	var err error
	i.position, err = w.meta.allocate(inodeSize + int(i.bodySize))
	return err
}

func (f *finisher) childNames(d *Inode) []string {
	names := make([]string, 0, len(d.Entries))
	for name := range d.Entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// writeTree writes i and, for a directory, all below it. Every inode has its
// place by now.
func (f *finisher) writeTree(i, parent *Inode) error {
	xattrs, err := encodeXattrs(i.Xattrs)
	if err != nil {
		return err
	}
	switch i.Type() {
	case TypeRegular:
		// Written when it was added, as a file with one name.
		if i.Links <= 1 {
			return nil
		}
		return f.w.meta.write(i.position, i.encode())
	case TypeDir:
		if err := f.writeData(i, xattrs, dirData(i, parent)); err != nil {
			return err
		}
		for _, name := range f.childNames(i) {
			if err := f.writeTree(i.Entries[name], i); err != nil {
				return err
			}
		}
		return nil
	}
	return f.writeData(i, xattrs, []byte(i.Target))
}

func (f *finisher) writeData(i *Inode, xattrs, data []byte) error {
	inline := int(i.bodySize) - len(xattrs)
	body := append(xattrs, data[len(data)-inline:]...)
	if whole := data[:len(data)-inline]; len(whole) > 0 {
		if err := f.w.write(int64(i.data.start)*blockSize, whole); err != nil {
			return err
		}
	}
	if i.position == rootOffset {
		// Its inode is written with the superblock, which keeps the rest.
		f.w.rootBody = body
		return nil
	}
	return f.w.meta.write(i.position, append(i.encode(), body...))
}

// sortedNames is the order of a directory's entries on disk.
func sortedNames(d *Inode) []string {
	names := make([]string, 0, len(d.Entries)+2)
	names = append(names, ".", "..")
	for name := range d.Entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// dirSize is the length of a directory's data: full blocks, and as much of the
// last one as is used.
func dirSize(names []string) int64 {
	size, used := int64(0), 0
	for _, name := range names {
		need := direntSize + len(name)
		if used+need > blockSize {
			size += blockSize
			used = 0
		}
		used += need
	}
	return size + int64(used)
}

// dirData is a directory's data: blocks of entries, each block's entries
// first, then their names.
func dirData(d, parent *Inode) []byte {
	names := sortedNames(d)
	data := make([]byte, 0, d.size)
	for len(names) > 0 {
		n, used := 0, 0
		for n < len(names) && used+direntSize+len(names[n]) <= blockSize {
			used += direntSize + len(names[n])
			n++
		}
		start := len(data)
		offset := n * direntSize
		for _, name := range names[:n] {
			target := d.Entries[name]
			switch name {
			case ".":
				target = d
			case "..":
				target = parent
			}
			data = binary.LittleEndian.AppendUint64(data, target.nid())
			data = binary.LittleEndian.AppendUint16(data, uint16(offset))
			data = append(data, fileType(target.Type()), 0)
			offset += len(name)
		}
		for _, name := range names[:n] {
			data = append(data, name...)
		}
		names = names[n:]
		if len(names) > 0 {
			data = append(data, zeros[:blockSize-(len(data)-start)]...)
		}
	}
	return data
}

// fileType is the type in a directory entry.
func fileType(t uint32) byte {
	switch t {
	case TypeRegular:
		return 1
	case TypeDir:
		return 2
	case TypeChar:
		return 3
	case TypeBlock:
		return 4
	case TypeFIFO:
		return 5
	case TypeSocket:
		return 6
	}
	return 7
}
