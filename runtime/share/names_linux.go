package share

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// special are the bits of a mode that give a program the rights of its file's owner or
// group. No file of the host's gets one.
const special = unix.S_ISUID | unix.S_ISGID

// again is the name, in proc, of what is open.
func again(fd int) string { return strconv.Itoa(fd) }

// parent is the directory that a message is about and the name in it that follows.
func (s *Server) parent(r *request, f *fields) (*node, string, error) {
	name := f.name()
	if f.bad {
		return nil, "", unix.EINVAL
	}
	n, err := s.directory(r.node)
	return n, name, err
}

// directory acquires a directory.
func (s *Server) directory(id uint64) (*node, error) {
	n, err := s.nodes.acquire(id)
	if err == nil && n.kind != unix.S_IFDIR {
		s.nodes.release(n)
		return nil, unix.ENOTDIR
	}
	return n, err
}

func (s *Server) lookup(r *request, f *fields, a *answer) error {
	dir, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(dir)
	_, err = s.entry(dir, name, a)
	return err
}

// entry tells the guest of the file with a name.
func (s *Server) entry(dir *node, name string, a *answer) (*node, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, err
	}
	n, err := s.nodes.add(dir, name, &st)
	if err != nil {
		return nil, err
	}
	s.present(&st, procPath(dir.fd, name), unix.Lgetxattr)
	s.presentNode(n, &st)
	s.putEntry(a, n.id, &st)
	return n, nil
}

// made tells the guest of the file with a name, which it has just made.
func (s *Server) made(r *request, dir *node, name string, a *answer) error {
	if r.uid != 0 {
		if fd, err := unix.Openat(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			var st unix.Statx_t
			if unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st) == nil {
				s.own(r, fd, &st)
			}
			unix.Close(fd)
		}
	}
	n, err := s.entry(dir, name, a)
	if err == nil && r.uid != 0 && !keeps(n.kind) {
		s.nodes.mu.Lock()
		n.owner = &owner{r.uid, r.gid}
		s.nodes.mu.Unlock()
	}
	return err
}

func (s *Server) putEntry(a *answer, id uint64, st *unix.Statx_t) {
	a.u64(id)
	a.u64(0) // generation: numbers are not used again
	a.u64(validSeconds)
	a.u64(validSeconds)
	a.u32(validNanoseconds)
	a.u32(validNanoseconds)
	s.putAttr(a, st)
}

// make makes a link, a directory, a file, a FIFO or a socket.
func (s *Server) make(r *request, f *fields, a *answer) error {
	var mode, target = uint32(unix.S_IFLNK), ""
	switch r.op {
	case opMkdir:
		mode = unix.S_IFDIR | f.u32()&^unix.S_IFMT
		f.skip(4) // the umask, which the mode is without
	case opMknod:
		mode = f.u32()
		f.skip(12) // device, umask
	}
	dir, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(dir)
	if r.op == opSymlink {
		if target = f.text(); f.bad || target == "" {
			return unix.EINVAL
		}
	}
	if mode&special != 0 {
		return unix.EPERM
	}
	switch perm := mode & 0o1777; mode & unix.S_IFMT {
	case unix.S_IFLNK:
		err = unix.Symlinkat(target, dir.fd, name)
	case unix.S_IFDIR:
		err = unix.Mkdirat(dir.fd, name, perm)
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
		err = unix.Mknodat(dir.fd, name, mode&unix.S_IFMT|perm, 0)
	default: // devices
		err = unix.EPERM
	}
	if err != nil {
		return err
	}
	return s.made(r, dir, name, a)
}

func (s *Server) remove(r *request, f *fields, flags int) error {
	dir, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(dir)
	return unix.Unlinkat(dir.fd, name, flags)
}

func (s *Server) rename(r *request, f *fields) error {
	newID, flags := f.u64(), uint32(0)
	if r.op == opRename2 {
		flags = f.u32()
		f.skip(4)
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL // RENAME_WHITEOUT makes a device
	}
	from, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(from)
	newName := f.name()
	if f.bad {
		return unix.EINVAL
	}
	to, err := s.directory(newID)
	if err != nil {
		return err
	}
	defer s.nodes.release(to)
	if flags == 0 {
		err = unix.Renameat(from.fd, name, to.fd, newName)
	} else {
		err = unix.Renameat2(from.fd, name, to.fd, newName, uint(flags))
	}
	if err != nil {
		return err
	}
	s.nodes.moved(to, newName)
	if flags&unix.RENAME_EXCHANGE != 0 {
		s.nodes.moved(from, name)
	}
	return nil
}

func (s *Server) link(r *request, f *fields, a *answer) error {
	id := f.u64()
	dir, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(dir)
	n, err := s.nodes.acquire(id)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	if n.kind == unix.S_IFDIR {
		return unix.EPERM
	}
	if err := unix.Linkat(int(s.proc.Fd()), again(n.fd), dir.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	_, err = s.entry(dir, name, a)
	return err
}

func (s *Server) readlink(r *request, a *answer) error {
	n, err := s.nodes.acquire(r.node)
	if err != nil {
		return err
	}
	defer s.nodes.release(n)
	if n.kind != unix.S_IFLNK {
		return unix.EINVAL
	}
	buf := a.room(unix.PathMax)
	got, err := unix.Readlinkat(n.fd, "", buf)
	if err == nil {
		*a = (*a)[:replySize+got]
	}
	return err
}
