package share

import (
	"bytes"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ino is the number by which the guest's programs know a file: unlike the host's, it
// is one of one file system.
func (s *Server) ino(dev, ino uint64) uint64 {
	if dev == s.dev {
		return ino
	}
	return ino ^ (dev+1)*0x9e3779b97f4a7c15
}

func (s *Server) putAttr(a *answer, st *unix.Statx_t) {
	a.u64(s.ino(unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino))
	a.u64(st.Size)
	a.u64(st.Blocks)
	a.u64(uint64(st.Atime.Sec))
	a.u64(uint64(st.Mtime.Sec))
	a.u64(uint64(st.Ctime.Sec))
	a.u32(st.Atime.Nsec)
	a.u32(st.Mtime.Nsec)
	a.u32(st.Ctime.Nsec)
	a.u32(uint32(st.Mode))
	a.u32(st.Nlink)
	a.u32(st.Uid)
	a.u32(st.Gid)
	// As the kernel encodes device numbers in 32 bits.
	a.u32(st.Rdev_minor&0xff | st.Rdev_major<<8 | st.Rdev_minor&^0xff<<12)
	a.u32(st.Blksize)
	a.u32(0)
}

// tellAttr is the answer that has a node's attributes; fd is its own, or an open file's.
func (s *Server) tellAttr(n *node, fd int, a *answer) error {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	s.present(&st, procPath(fd), unix.Getxattr)
	s.presentNode(n, &st)
	a.u64(validSeconds)
	a.u32(validNanoseconds)
	a.u32(0)
	s.putAttr(a, &st)
	return nil
}

func (s *Server) getattr(r *request, f *fields, a *answer) error {
	flags := f.u32()
	f.skip(4)
	if id := f.u64(); flags&attrOfHandle != 0 {
		h, err := s.handles.get(id)
		if err != nil {
			return err
		}
		defer s.handles.put(h)
		return s.tellAttr(h.node, h.fd, a)
	}
	n, err := s.nodes.acquire(r.node)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	return s.tellAttr(n, n.fd, a)
}

// attributes are the fields of SETATTR.
type attributes struct {
	valid        uint32
	handle, size uint64
	atime, mtime unix.Timespec
	mode         uint32
	uid, gid     uint32
}

func (f *fields) attributes() attributes {
	var v attributes
	v.valid = f.u32()
	f.skip(4)
	v.handle, v.size = f.u64(), f.u64()
	f.skip(8) // the owner of a lock
	v.atime.Sec, v.mtime.Sec = int64(f.u64()), int64(f.u64())
	f.skip(8) // ctime
	v.atime.Nsec, v.mtime.Nsec = int64(f.u32()), int64(f.u32())
	f.skip(4)
	v.mode = f.u32()
	f.skip(4)
	v.uid, v.gid = f.u32(), f.u32()
	return v
}

func (s *Server) setattr(r *request, f *fields, a *answer) error {
	v := f.attributes()
	if f.bad {
		return unix.EINVAL
	}
	n, err := s.nodes.acquire(r.node)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	if v.valid&setMode != 0 {
		if v.mode&special != 0 {
			return unix.EPERM
		}
		if err := s.chmod(n, v.mode&0o1777); err != nil {
			return err
		}
	}
	if v.valid&(setUID|setGID) != 0 {
		if err := s.chown(n, &v); err != nil {
			return err
		}
	}
	if v.valid&setSize != 0 {
		if err := s.truncate(n, &v); err != nil {
			return err
		}
	}
	if v.valid&(setAtime|setMtime) != 0 {
		times := []unix.Timespec{v.time(setAtime, setAtimeNow, v.atime), v.time(setMtime, setMtimeNow, v.mtime)}
		if err := unix.UtimesNanoAt(int(s.proc.Fd()), again(n.fd), times, 0); err != nil {
			return err
		}
	}
	return s.tellAttr(n, n.fd, a)
}

func (s *Server) chmod(n *node, mode uint32) error {
	if n.kind == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Fchmodat(int(s.proc.Fd()), again(n.fd), mode, 0)
}

func (s *Server) truncate(n *node, v *attributes) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	if v.valid&setHandle != 0 {
		if h, err := s.handles.get(v.handle); err == nil {
			defer s.handles.put(h)
			if h.node == n {
				return unix.Ftruncate(h.fd, int64(v.size))
			}
		}
	}
	fd, err := s.reopen(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, int64(v.size))
}

func (v *attributes) time(set, now uint32, t unix.Timespec) unix.Timespec {
	switch {
	case v.valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case v.valid&set != 0:
		return t
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

func (s *Server) statfs(r *request, a *answer) error {
	n, err := s.nodes.acquire(r.node)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &st); err != nil {
		return err
	}
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		a.u64(v)
	}
	a.u32(uint32(st.Bsize))
	a.u32(uint32(st.Namelen))
	a.u32(uint32(st.Frsize))
	a.zeros(28)
	return nil
}

// userPrefix is of the attributes that mean nothing to the host's kernel. It has no
// others of a share's.
const userPrefix = "user."

// isUsers says whether an attribute is the guest's.
func isUsers(name string) bool {
	return strings.HasPrefix(name, userPrefix) && !strings.HasPrefix(name, ownPrefix)
}

// attributed acquires a file that can have extended attributes, and names it.
func (s *Server) attributed(r *request) (*node, string, error) {
	n, err := s.nodes.acquire(r.node)
	if err == nil && n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		s.nodes.release(n)
		err = unix.EOPNOTSUPP
	}
	if err != nil {
		return nil, "", err
	}
	return n, procPath(n.fd), nil
}

func (s *Server) getxattr(r *request, f *fields, a *answer) error {
	size := f.u32()
	f.skip(4)
	name := ""
	if r.op == opGetxattr {
		if name = f.text(); !f.bad && !isUsers(name) {
			return unix.EOPNOTSUPP
		}
	}
	if f.bad {
		return unix.EINVAL
	}
	n, path, err := s.attributed(r)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	value := a.room(maxXattr)
	var got int
	if r.op == opGetxattr {
		got, err = unix.Getxattr(path, name, value)
	} else if got, err = unix.Listxattr(path, value); err == nil {
		got = keepUsers(value[:got])
	}
	if err != nil {
		return err
	}
	if size == 0 {
		a.begin()
		a.u32(uint32(got))
		a.u32(0)
		return nil
	}
	if got > int(size) {
		return unix.ERANGE
	}
	*a = (*a)[:replySize+got]
	return nil
}

// maxXattr is the longest value, and the longest list, XATTR_SIZE_MAX.
const maxXattr = 64 << 10

// keepUsers moves the users' names of a list to its front, and returns their length.
func keepUsers(list []byte) int {
	kept := 0
	rest := list
	for len(rest) > 0 {
		n := bytes.IndexByte(rest, 0) + 1
		if n == 0 {
			n = len(rest)
		}
		if isUsers(string(rest[:n])) {
			kept += copy(list[kept:], rest[:n])
		}
		rest = rest[n:]
	}
	return kept
}

func (s *Server) setxattr(r *request, f *fields) error {
	var size, flags uint32
	if r.op == opSetxattr {
		size, flags = f.u32(), f.u32()
	}
	name := f.text()
	if f.bad || size > maxXattr || int(size) > len(f.rest) {
		return unix.EINVAL
	}
	if !isUsers(name) {
		return unix.EOPNOTSUPP
	}
	n, path, err := s.attributed(r)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	if r.op == opRemovexattr {
		return unix.Removexattr(path, name)
	}
	return unix.Setxattr(path, name, f.rest[:size], int(flags&(unix.XATTR_CREATE|unix.XATTR_REPLACE)))
}

// pwriteAppend writes at the end of a file, wherever that is by then.
func pwriteAppend(fd int, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	vector := syscall.Iovec{Base: &data[0]}
	vector.SetLen(len(data))
	const rwfAppend = 0x10 // RWF_APPEND of linux/fs.h
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&vector)), 1, 0, 0, rwfAppend)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
