package share

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// direntHeader is the length of what is before the name in the host's entries.
const direntHeader = 19

// readdir tells the entries of a directory from an offset on. Offsets are the host's
// file system's, which stay what they are while entries come and go.
func (s *Server) readdir(r *request, f *fields, a *answer) error {
	id, offset, size := f.u64(), int64(f.u64()), int(f.u32())
	if f.bad || size > maxData {
		return unix.EINVAL
	}
	h, err := s.handles.get(id)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if h.node.kind != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if offset != h.next || offset == 0 {
		if _, err := unix.Seek(h.fd, offset, 0); err != nil {
			return err
		}
		h.entries, h.next = nil, offset
	}
	for {
		if len(h.entries) == 0 {
			if h.buffer == nil {
				h.buffer = make([]byte, 8<<10)
			}
			n, err := unix.Getdents(h.fd, h.buffer)
			if err != nil && len(*a) == replySize {
				return err
			}
			if err != nil || n <= 0 {
				h.entries, h.buffer = nil, nil
				return nil
			}
			h.entries = h.buffer[:n]
		}
		// struct linux_dirent64: ino, offset, length, type, name.
		e := h.entries
		length := int(binary.NativeEndian.Uint16(e[16:]))
		e, rest := e[:length], e[length:]
		name := e[direntHeader:]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		next := binary.NativeEndian.Uint64(e[8:])
		takes := direntSize + len(name) + pad(len(name))
		if r.op == opReaddirplus {
			takes += entrySize
		}
		if len(*a)-replySize+takes > size {
			return nil
		}
		if r.op == opReaddirplus {
			s.entryOf(h.node, name, a)
		}
		a.dirent(s.ino(h.node.key.dev, binary.NativeEndian.Uint64(e)), next, uint32(e[18]), name)
		h.entries, h.next = rest, int64(next)
	}
}

// entryOf tells what a name is that was read, as a lookup would; nothing where it is
// gone.
func (s *Server) entryOf(dir *node, name []byte, a *answer) {
	if text := string(name); text != "." && text != ".." {
		if _, err := s.entry(dir, text, a); err == nil {
			return
		}
	}
	a.zeros(entrySize)
}
