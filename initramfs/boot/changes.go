//go:build linux

package boot

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Changes ends every process and writes what the guest has changed of its
// image, as a layer of a container image: the overlay's upper directory, with
// its marks turned into whiteouts (OCI image specification, layer.md).
func (s *System) Changes(w io.Writer) error {
	if s.upper == nil {
		return errors.New("the guest has no root of its own")
	}
	if err := errors.Join(s.endLayer(), s.layers.forget()); err != nil {
		return err
	}
	unix.Sync()
	etc, err := filepath.EvalSymlinks("/etc")
	if err != nil {
		etc = "/etc" // the command took it away
	}
	c := &changes{upper: s.upper, lower: s.lower, tar: tar.NewWriter(w), links: map[uint64]string{}, ours: ours(etc)}
	if err := c.entry("."); err != nil {
		return err
	}
	return c.tar.Close()
}

// ours are the places of the guest's root that are its init's, not its image's. etc is
// where /etc is, which may be a link.
func ours(etc string) map[string]bool {
	places := map[string]bool{"dev": true, "proc": true, "sys": true}
	for _, name := range []string{"hostname", "hosts", "resolv.conf", "machine-id", "mtab"} {
		places[path.Join(strings.TrimPrefix(etc, "/"), name)] = true
	}
	return places
}

type changes struct {
	upper, lower *os.Root
	tar          *tar.Writer
	links        map[uint64]string // the first name of each file with several
	ours         map[string]bool
	above        []*tar.Header // directories on the way that are not written yet
}

// write writes an entry, after the directories that lead to it: tools that unpack each
// layer by itself give one that is missing root as its owner and mode 0755, and join the
// layers afterwards.
func (c *changes) write(h *tar.Header) error {
	for _, dir := range c.above {
		if err := c.tar.WriteHeader(dir); err != nil {
			return err
		}
	}
	c.above = c.above[:0]
	return c.tar.WriteHeader(h)
}

func (c *changes) dir(name string) error {
	d, err := c.upper.Open(name)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		full := path.Join(name, e.Name())
		if c.ours[full] {
			continue
		}
		if err := c.entry(full); err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
	}
	return nil
}

func (c *changes) entry(name string) error {
	info, err := c.upper.Lstat(name)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner is not known")
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFCHR && st.Rdev == 0 {
		return c.write(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), Format: tar.FormatPAX})
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return c.directory(h)
	case syscall.S_IFREG:
		return c.file(h, st)
	case syscall.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = c.upper.Readlink(name); err != nil {
			return err
		}
	case syscall.S_IFCHR, syscall.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&syscall.S_IFMT == syscall.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	case syscall.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil // a socket: its listener is gone
	}
	return c.write(h)
}

// directory writes a directory if it, or something in it, is not as it was.
func (c *changes) directory(h *tar.Header) error {
	d, err := c.upper.Open(h.Name)
	if err != nil {
		return err
	}
	defer d.Close()
	xattrs, opaque, err := readXattrs(d)
	if err != nil {
		return err
	}
	same := !opaque && c.same(h, xattrs)
	own := &tar.Header{Typeflag: tar.TypeDir, Name: h.Name + "/", Mode: h.Mode, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime, PAXRecords: xattrs, Format: tar.FormatPAX}
	if !same {
		if err := c.write(own); err != nil {
			return err
		}
	} else if h.Name != "." { // the root is there, whatever unpacks a layer
		c.above = append(c.above, own)
	}
	if opaque {
		if err := c.write(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name + "/.wh..wh..opq", Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	if err := c.dir(h.Name); err != nil {
		return err
	}
	if n := len(c.above); n > 0 && c.above[n-1] == own {
		c.above = c.above[:n-1]
	}
	return nil
}

// same says whether the image has a directory of that name with the same owner,
// mode, time and attributes: it was copied up for what is in it. The time of the root is
// that of the guest's start.
func (c *changes) same(h *tar.Header, xattrs map[string]string) bool {
	d, err := c.lower.Open(h.Name)
	if err != nil {
		return false
	}
	defer d.Close()
	info, err := c.lower.Lstat(h.Name)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(st.Mode&0o7777) != h.Mode || int(st.Uid) != h.Uid || int(st.Gid) != h.Gid {
		return false
	}
	if h.Name != "." && !time.Unix(st.Mtim.Unix()).Equal(h.ModTime) {
		return false
	}
	old, _, err := readXattrs(d)
	return err == nil && maps.Equal(old, xattrs)
}

func (c *changes) file(h *tar.Header, st *syscall.Stat_t) error {
	if st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return c.write(h)
		}
		c.links[st.Ino] = h.Name
	}
	f, err := c.upper.Open(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if h.PAXRecords, _, err = readXattrs(f); err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if err := c.write(h); err != nil {
		return err
	}
	_, err = io.Copy(c.tar, f)
	return err
}

// overlayXattr begins the overlay's own attributes.
const overlayXattr = "trusted.overlay."

// xattrRecord is how a tar archive names an extended attribute.
const xattrRecord = "SCHILY.xattr."

// readXattrs reads extended attributes as records of a tar archive. Those of the
// overlay's are left out; opaque says that it hides what is below.
func readXattrs(f *os.File) (records map[string]string, opaque bool, err error) {
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if err == unix.ENOTSUP || size == 0 {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, false, err
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		size, err := unix.Fgetxattr(fd, name, nil)
		if err != nil {
			return nil, false, err
		}
		value := make([]byte, size)
		if size, err = unix.Fgetxattr(fd, name, value); err != nil {
			return nil, false, err
		}
		if own, ok := strings.CutPrefix(name, overlayXattr); ok {
			// Of a program's own attribute of such a name it keeps that one, see
			// "Nesting overlayfs mounts" of the kernel's overlayfs.rst.
			nested, isNested := strings.CutPrefix(own, "overlay.")
			if !isNested {
				opaque = opaque || own == "opaque" && string(value[:size]) == "y"
				continue
			}
			name = overlayXattr + nested
		}
		if records == nil {
			records = map[string]string{}
		}
		records[xattrRecord+name] = string(value[:size])
	}
	return records, opaque, nil
}
