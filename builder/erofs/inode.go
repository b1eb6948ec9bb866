package erofs

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"strings"
)

// The types of an inode, as in st_mode.
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

// Inode is a file of any type. An inode that several directories name is a
// hard link.
//
// There is one in memory for each file of an image: its fields are ordered and
// sized to take 112 bytes.
type Inode struct {
	Mode     uint32 // type and permissions, as st_mode
	UID, GID uint32
	Nanos    uint32 // of the modification time, below the second
	Seconds  int64  // of the modification time
	Xattrs   map[string]string
	Target   string            // of a symbolic link
	Major    uint32            // of a device
	Minor    uint32            // of a device
	Entries  map[string]*Inode // of a directory, without "." and ".."
	Links    uint32            // names of anything but a directory

	number    uint32
	size      int64
	position  int64  // in the file; 0 until placed
	data      extent // file or directory blocks
	xattrSize int32
	bodySize  int32 // of what follows the inode: xattrs, inline data, chunk map
	layout    uint8
	chunkBits uint8
}

// Type is the type part of Mode.
func (i *Inode) Type() uint32 { return i.Mode & TypeMask }

// IsDir says whether i is a directory.
func (i *Inode) IsDir() bool { return i.Type() == TypeDir }

// Size is the length of a regular file, in bytes.
func (i *Inode) Size() int64 { return i.size }

func (i *Inode) nid() uint64 { return uint64(i.position) / slotSize }

func (i *Inode) links() uint32 {
	if !i.IsDir() {
		return max(i.Links, 1)
	}
	n := uint32(2)
	for _, e := range i.Entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

// encode is struct erofs_inode_extended.
func (i *Inode) encode() []byte {
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	le.PutUint16(b[0:], 1|uint16(i.layout)<<1)
	if i.xattrSize > 0 {
		le.PutUint16(b[2:], uint16((i.xattrSize-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], uint16(i.Mode))
	le.PutUint64(b[8:], uint64(i.size))
	switch {
	case i.Type() == TypeChar || i.Type() == TypeBlock:
		le.PutUint32(b[16:], encodeDevice(i.Major, i.Minor))
	case i.layout == chunkBased:
		le.PutUint16(b[16:], uint16(i.chunkBits)-blockBits)
	default:
		le.PutUint32(b[16:], i.data.start)
	}
	le.PutUint32(b[20:], i.number)
	le.PutUint32(b[24:], i.UID)
	le.PutUint32(b[28:], i.GID)
	le.PutUint64(b[32:], uint64(i.Seconds))
	le.PutUint32(b[40:], i.Nanos)
	le.PutUint32(b[44:], i.links())
	return b
}

// encodeDevice is the kernel's new_encode_dev.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

const xattrHeader = 12

// xattrPrefixes are the namespaces that the format has, by their index.
var xattrPrefixes = []struct {
	prefix string
	index  byte
	whole  bool // the prefix is the whole name
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

// encodeXattrs is what follows an inode with extended attributes. Attributes
// in namespaces that the format does not have are left out, as a file system
// that does not support them would.
func encodeXattrs(xattrs map[string]string) ([]byte, error) {
	names := make([]string, 0, len(xattrs))
	for name := range xattrs {
		names = append(names, name)
	}
	sort.Strings(names)
	b := make([]byte, xattrHeader)
	for _, name := range names {
		index, suffix, ok := splitXattr(name)
		if !ok {
			continue
		}
		value := xattrs[name]
		if len(suffix) > math.MaxUint8 || len(value) > math.MaxUint16 {
			return nil, fmt.Errorf("extended attribute %q of %d bytes: %w", name, len(value), ErrTooLarge)
		}
		b = append(b, byte(len(suffix)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, suffix...)
		b = append(b, value...)
		b = append(b, zeros[:-len(b)&3]...)
	}
	if len(b) == xattrHeader {
		return nil, nil
	}
	if (len(b)-xattrHeader)/4+1 > math.MaxUint16 {
		return nil, fmt.Errorf("%d bytes of extended attributes: %w", len(b), ErrTooLarge)
	}
	return b, nil
}

func splitXattr(name string) (index byte, suffix string, ok bool) {
	for _, p := range xattrPrefixes {
		if p.whole && name == p.prefix {
			return p.index, "", true
		}
		if suffix, found := strings.CutPrefix(name, p.prefix); found && !p.whole && suffix != "" {
			return p.index, suffix, true
		}
	}
	return 0, "", false
}
