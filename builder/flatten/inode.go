package flatten

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

func newInode(h *tar.Header) (*erofs.Inode, error) {
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeGNUSparse, tar.TypeCont: // the second in old archives, the last two are read as the first
		return &erofs.Inode{Mode: erofs.TypeRegular}, nil
	case tar.TypeDir:
		return newDir(), nil
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= maxPath || strings.IndexByte(h.Linkname, 0) >= 0 {
			return nil, fmt.Errorf("%w: malformed symbolic link", ErrInvalid)
		}
		return &erofs.Inode{Mode: erofs.TypeSymlink, Target: h.Linkname}, nil
	case tar.TypeChar, tar.TypeBlock:
		// The kernel's device numbers have 12 and 20 bits.
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return nil, fmt.Errorf("%w: device number %d:%d", ErrInvalid, h.Devmajor, h.Devminor)
		}
		i := &erofs.Inode{Mode: erofs.TypeChar, Major: uint32(h.Devmajor), Minor: uint32(h.Devminor)}
		if h.Typeflag == tar.TypeBlock {
			i.Mode = erofs.TypeBlock
		}
		return i, nil
	case tar.TypeFifo:
		return &erofs.Inode{Mode: erofs.TypeFIFO}, nil
	}
	return nil, fmt.Errorf("%w: entry of unknown type %q", ErrInvalid, h.Typeflag)
}

// How archives name extended attributes: star and GNU tar as they are, libarchive
// percent-encoded, with values in base64.
const (
	xattrRecord      = "SCHILY.xattr."
	libarchiveRecord = "LIBARCHIVE.xattr."
)

// Attributes of the overlay that a guest's root is. A layer that has such was
// made of a file system below an overlay: they are its content, and kept under
// the name that overlayfs gives such ("Nesting overlayfs mounts" of the kernel's
// overlayfs.rst), as which the guest has them again.
const (
	overlayXattr = "trusted.overlay."
	nestedXattr  = "trusted.overlay.overlay."
)

// describe sets owner, mode, time and extended attributes.
func (t *Tree) describe(i *erofs.Inode, h *tar.Header) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > 1<<32-2 || int64(h.Gid) > 1<<32-2 {
		return fmt.Errorf("%w: owner %d:%d", ErrInvalid, h.Uid, h.Gid)
	}
	i.UID, i.GID = uint32(h.Uid), uint32(h.Gid)
	perm := uint32(h.Mode) & 0o7777
	if i.Type() == erofs.TypeSymlink {
		perm = 0o777
	}
	i.Mode = i.Type() | perm
	mtime := h.ModTime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	i.Seconds, i.Nanos = mtime.Unix(), uint32(mtime.Nanosecond())
	i.Xattrs = nil
	size := 0
	for key, value := range h.PAXRecords {
		name, value, ok := xattr(h.PAXRecords, key, value)
		if !ok {
			continue
		}
		if size += len(name) + len(value); size > maxXattrs {
			return fmt.Errorf("%w: more than %d bytes of extended attributes", ErrInvalid, maxXattrs)
		}
		if i.Xattrs == nil {
			i.Xattrs = map[string]string{}
		}
		i.Xattrs[name] = value
	}
	return t.keep(size)
}

// xattr is the extended attribute that a record is of.
func xattr(records map[string]string, key, value string) (name, plain string, ok bool) {
	if name, ok = strings.CutPrefix(key, xattrRecord); !ok {
		encoded, isOne := strings.CutPrefix(key, libarchiveRecord)
		if !isOne {
			return "", "", false
		}
		// Either may be wrong in what others wrote: it is left out then, as by tar.
		var err error
		if name, err = url.PathUnescape(encoded); err != nil {
			return "", "", false
		}
		if _, both := records[xattrRecord+name]; both {
			return "", "", false
		}
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return "", "", false
		}
		value = string(b)
	}
	if rest, own := strings.CutPrefix(name, overlayXattr); own {
		name = nestedXattr + rest
	}
	return name, value, name != ""
}

// Xattrs are an inode's extended attributes as its layer had them.
func Xattrs(of map[string]string) map[string]string {
	for name := range of {
		if strings.HasPrefix(name, nestedXattr) {
			as := map[string]string{}
			for name, value := range of {
				if rest, nested := strings.CutPrefix(name, nestedXattr); nested {
					name = overlayXattr + rest
				}
				as[name] = value
			}
			return as
		}
	}
	return of
}
