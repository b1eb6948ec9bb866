package share

import (
	"golang.org/x/sys/unix"
)

// openFlags are those that mean the same on every architecture, and something here.
// That a file is written to at its end each WRITE says, since the pages of mapped
// memory are not.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_DSYNC | unix.O_SYNC

// reopen opens a file or directory that is known. What is something else stays closed.
func (s *Server) reopen(n *node, flags int) (int, error) {
	switch n.kind {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		flags = unix.O_RDONLY | unix.O_DIRECTORY
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	default:
		return -1, unix.ENXIO
	}
	return unix.Openat(int(s.proc.Fd()), again(n.fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

func (s *Server) open(r *request, f *fields, a *answer) error {
	flags := int(f.u32())
	if f.bad {
		return unix.EINVAL
	}
	if s.readOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0) {
		return unix.EROFS
	}
	n, err := s.nodes.acquire(r.node)
	if err != nil {
		return err
	}
	fd := -1
	if r.op == opOpendir && n.kind != unix.S_IFDIR {
		err = unix.ENOTDIR
	} else if r.op == opOpen && n.kind == unix.S_IFDIR {
		err = unix.EISDIR
	} else {
		fd, err = s.reopen(n, flags&openFlags)
	}
	return s.opened(fd, n, err, a)
}

// opened gives the guest a number for an open file, unless there was an error. The use
// of the node is the number's then.
func (s *Server) opened(fd int, n *node, err error, a *answer) error {
	var id uint64
	if err == nil {
		id, err = s.handles.add(fd, n, s.nodes.release)
	}
	if err != nil {
		s.nodes.release(n)
		return err
	}
	a.opened(id)
	return nil
}

// create makes a file, or with a name that has one opens that, unless O_EXCL is given.
// A TMPFILE's name, a slash, means nothing.
func (s *Server) create(r *request, f *fields, a *answer) error {
	flags, mode := int(f.u32()), f.u32()
	f.skip(8) // umask, which the mode is without; flags of FUSE's
	if mode&special != 0 {
		return unix.EPERM
	}
	mode &= 0o1777
	if r.op == opTmpfile {
		dir, err := s.directory(r.node)
		if err != nil {
			return err
		}
		defer s.nodes.release(dir)
		fd, err := unix.Openat(int(s.proc.Fd()), again(dir.fd), flags&openFlags|unix.O_TMPFILE|unix.O_CLOEXEC, mode)
		if err != nil {
			return err
		}
		return s.created(r, fd, nil, "", a)
	}
	dir, name, err := s.parent(r, f)
	if err != nil {
		return err
	}
	defer s.nodes.release(dir)
	fd, err := unix.Openat(dir.fd, name, flags&openFlags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
		n, err := s.entry(dir, name, a)
		if err != nil {
			return err
		}
		err = unix.ESTALE // one that is not a file now: the guest looks it up anew
		if n.kind == unix.S_IFREG {
			err = s.openNode(n.id, flags, a)
		}
		if err != nil {
			s.nodes.forget(n.id, 1)
		}
		return err
	}
	if err != nil {
		return err
	}
	return s.created(r, fd, dir, name, a)
}

func (s *Server) openNode(id uint64, flags int, a *answer) error {
	n, err := s.nodes.acquire(id)
	if err != nil {
		return err
	}
	fd, err := s.reopen(n, flags&openFlags)
	return s.opened(fd, n, err, a)
}

// created tells the guest of a new file, which it has open.
func (s *Server) created(r *request, fd int, dir *node, name string, a *answer) error {
	// Not fd itself again: a program that is open for writing cannot be run.
	path, err := unix.Openat(int(s.proc.Fd()), again(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	var st unix.Statx_t
	if err == nil {
		err = unix.Statx(path, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	}
	var n *node
	if err == nil {
		s.own(r, fd, &st)
		n, err = s.nodes.addOpen(path, dir, name, &st)
	} else if path >= 0 {
		unix.Close(path)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	s.putEntry(a, n.id, &st)
	if err := s.opened(fd, n, nil, a); err != nil {
		s.nodes.forget(n.id, 1)
		return err
	}
	return nil
}

func (s *Server) read(f *fields, a *answer) error {
	id, offset, size := f.u64(), int64(f.u64()), f.u32()
	if f.bad || size > maxData {
		return unix.EINVAL
	}
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	buf := a.room(int(size))
	got := 0
	for got < len(buf) {
		n, err := unix.Pread(h.fd, buf[got:], offset+int64(got))
		if err == unix.EINTR {
			continue
		}
		if err != nil && got == 0 {
			return err
		}
		if err != nil || n <= 0 {
			break
		}
		got += n
	}
	*a = (*a)[:replySize+got]
	return nil
}

func (s *Server) write(f *fields, a *answer) error {
	id, offset, size, how := f.u64(), int64(f.u64()), f.u32(), f.u32()
	f.skip(8)
	flags := f.u32()
	f.skip(4)
	if f.bad || int(size) > len(f.rest) {
		return unix.EINVAL
	}
	data := f.rest[:size]
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	done := 0
	for done < len(data) {
		var n int
		if flags&unix.O_APPEND != 0 && how&writeFromCache == 0 {
			n, err = pwriteAppend(h.fd, data[done:])
		} else {
			n, err = unix.Pwrite(h.fd, data[done:], offset+int64(done))
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return err
		}
		if err != nil || n <= 0 {
			break
		}
		done += n
	}
	a.u32(uint32(done))
	a.u32(0)
	return nil
}

func (s *Server) fsync(f *fields) error {
	id, flags := f.u64(), f.u32()
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if flags&fsyncData != 0 {
		return unix.Fdatasync(h.fd)
	}
	return unix.Fsync(h.fd)
}

func (s *Server) fallocate(f *fields) error {
	id, offset, length, mode := f.u64(), int64(f.u64()), int64(f.u64()), f.u32()
	if f.bad {
		return unix.EINVAL
	}
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	return unix.Fallocate(h.fd, mode, offset, length)
}

func (s *Server) lseek(f *fields, a *answer) error {
	id, offset, whence := f.u64(), int64(f.u64()), f.u32()
	if f.bad || whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if h.node.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	at, err := unix.Seek(h.fd, offset, int(whence)) // whose result alone matters
	if err == nil {
		a.u64(uint64(at))
	}
	return err
}

// maxCopy is how much one request copies: a worker does not copy for minutes.
const maxCopy = 64 << 20

func (s *Server) copyFileRange(f *fields, a *answer) error {
	fromID, from := f.u64(), int64(f.u64())
	f.skip(8) // the number of the other node
	toID, to, length := f.u64(), int64(f.u64()), f.u64()
	if f.bad {
		return unix.EINVAL
	}
	in, err := s.handles.get(fromID)
	if err != nil {
		return err
	}
	defer s.handles.put(in)
	out, err := s.handles.get(toID)
	if err != nil {
		return err
	}
	defer s.handles.put(out)
	n, err := unix.CopyFileRange(in.fd, &from, out.fd, &to, int(min(length, maxCopy)), 0)
	if err != nil {
		return err
	}
	a.u32(uint32(n))
	a.u32(0)
	return nil
}
