package share

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Files belong to the server's user, whatever the guest does: it gives none away. Whose
// the guest takes a file for is kept with it, in an extended attribute of that file,
// which the guest has no other way to. Of what can have none, as a symbolic link, it is
// known as long as the guest knows the file.
const (
	ownPrefix = "user.lumina."
	ownerName = ownPrefix + "owner"
)

// owner is a user and a group of the guest's.
type owner struct{ uid, gid uint32 }

func (o owner) String() string { return fmt.Sprintf("%d:%d", o.uid, o.gid) }

// readOwner reads what String wrote.
func readOwner(b []byte) (o owner, ok bool) {
	n, err := fmt.Sscanf(string(b), "%d:%d", &o.uid, &o.gid)
	return o, n == 2 && err == nil && o.String() == string(b)
}

// keeps says whether a kind of files can have extended attributes.
func keeps(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFREG || mode&unix.S_IFMT == unix.S_IFDIR
}

// procPath is the path of what is open, or of a name in a directory that is.
func procPath(fd int, name ...string) string {
	return strings.Join(append([]string{"/proc/self/fd/" + again(fd)}, name...), "/")
}

// present puts the owner that the guest knows in the place of the host's. path is the
// file's, and its last name is not followed unless it is open.
func (s *Server) present(st *unix.Statx_t, path string, get func(string, string, []byte) (int, error)) {
	if st.Uid != s.user || !keeps(uint32(st.Mode)) {
		return // another user's file says what that user wants
	}
	var b [32]byte
	if n, err := get(path, ownerName, b[:]); err == nil {
		if o, ok := readOwner(b[:n]); ok {
			st.Uid, st.Gid = o.uid, o.gid
		}
	}
}

// presentNode is present for what has its owner in memory.
func (s *Server) presentNode(n *node, st *unix.Statx_t) {
	if keeps(n.kind) {
		return
	}
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	if n.owner != nil {
		st.Uid, st.Gid = n.owner.uid, n.owner.gid
	}
}

// chown gives a file to another user of the guest's.
func (s *Server) chown(n *node, v *attributes) error {
	var st unix.Statx_t
	if err := unix.Statx(n.fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	real := owner{st.Uid, st.Gid}
	s.present(&st, procPath(n.fd), unix.Getxattr)
	s.presentNode(n, &st)
	now := owner{st.Uid, st.Gid}
	to := now
	if v.valid&setUID != 0 {
		to.uid = v.uid
	}
	if v.valid&setGID != 0 {
		to.gid = v.gid
	}
	if to == now {
		// Nothing changes but the time, and what the kernel takes from programs then.
		return unix.Fchownat(n.fd, "", -1, -1, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	}
	if real.uid != s.user {
		return unix.EPERM
	}
	if !keeps(n.kind) {
		s.nodes.mu.Lock()
		n.owner = &to
		s.nodes.mu.Unlock()
		return nil
	}
	if to != real {
		return s.keep(n.fd, uint32(st.Mode), to)
	}
	err := s.writable(n.fd, uint32(st.Mode), func(path string) error { return unix.Removexattr(path, ownerName) })
	if err == unix.ENODATA {
		return nil
	}
	return err
}

// keep keeps an owner with an open file of a mode.
func (s *Server) keep(fd int, mode uint32, o owner) error {
	err := s.writable(fd, mode, func(path string) error { return unix.Setxattr(path, ownerName, []byte(o.String()), 0) })
	if err == unix.EOPNOTSUPP {
		return unix.EPERM // the host's file system has no such attributes
	}
	return err
}

// writable changes an attribute of an open file, which has to be one that its user may
// write to meanwhile.
func (s *Server) writable(fd int, mode uint32, change func(path string) error) error {
	err := change(procPath(fd))
	if err != unix.EACCES || mode&unix.S_IWUSR != 0 {
		return err
	}
	proc := int(s.proc.Fd())
	if err := unix.Fchmodat(proc, again(fd), mode&0o1777|unix.S_IWUSR, 0); err != nil {
		return err
	}
	return errors.Join(change(procPath(fd)), unix.Fchmodat(proc, again(fd), mode&0o1777, 0))
}

// own notes that a user of the guest's has made a file. What its root makes is the
// server's user's, as the host has it. A file system without attributes has that, too.
func (s *Server) own(r *request, fd int, st *unix.Statx_t) {
	o := owner{r.uid, r.gid}
	if r.uid == 0 || st.Uid != s.user || o == (owner{st.Uid, st.Gid}) || !keeps(uint32(st.Mode)) {
		return
	}
	if s.keep(fd, uint32(st.Mode), o) == nil {
		st.Uid, st.Gid = o.uid, o.gid
	}
}
