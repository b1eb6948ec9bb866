package share

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// key tells files apart.
type key struct{ dev, ino uint64 }

// node is a file or directory that the guest knows by a number. It is found again by
// its name in its parent, unless its descriptor is open.
type node struct {
	id   uint64
	key  key
	kind uint32 // S_IFMT of its mode

	// What follows is guarded by the table's mutex; fd does not change while there
	// are users.
	fd       int    // O_PATH; -1 for none
	lookups  uint64 // how often the guest was told of it and has not forgotten
	users    int    // calls that use fd, and open files
	children int    // nodes whose parent it is
	parent   *node  // nil for the root
	name     string // in parent, when it was last looked up
	owner    *owner // of what cannot keep its own; nil for the host's
	idle     *list.Element
}

// nodes is what the guest knows. Parents of what it knows are kept. No node is its own
// ancestor.
type nodes struct {
	mu      sync.Mutex
	byID    map[uint64]*node
	byKey   map[key]*node
	root    *node
	last    uint64
	fds     int       // open
	maxFDs  int       // beyond it the one is closed that was not used for longest
	idle    list.List // nodes with a descriptor and no user, by their last use
	maximum int       // of nodes
}

func newNodes(fd int, maxFDs int) (*nodes, error) {
	t := &nodes{byID: map[uint64]*node{}, byKey: map[key]*node{}, last: rootID, maxFDs: maxFDs, maximum: maxNodes}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	t.root = &node{id: rootID, key: key{st.Dev, st.Ino}, kind: st.Mode & unix.S_IFMT, fd: fd, lookups: 1, users: 1}
	t.byID[rootID], t.byKey[t.root.key] = t.root, t.root
	return t, nil
}

// acquire returns the node of a number, with its descriptor open, until it is released.
func (t *nodes) acquire(id uint64) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return nil, unix.ESTALE
	}
	t.use(n)
	if n.fd >= 0 {
		return n, nil
	}
	if err := t.reopen(n); err != nil {
		t.unuse(n)
		return nil, err
	}
	return n, nil
}

func (t *nodes) release(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unuse(n)
}

func (t *nodes) use(n *node) {
	n.users++
	if n.idle != nil {
		t.idle.Remove(n.idle)
		n.idle = nil
	}
}

func (t *nodes) unuse(n *node) {
	n.users--
	if n.users > 0 {
		return
	}
	if n.fd >= 0 {
		n.idle = t.idle.PushBack(n)
	}
	t.sweep(n)
	t.trim()
}

// trim closes descriptors beyond the limit.
func (t *nodes) trim() {
	for t.fds > t.maxFDs {
		oldest := t.idle.Front()
		if oldest == nil {
			return
		}
		t.closeFD(oldest.Value.(*node))
	}
}

func (t *nodes) closeFD(n *node) {
	if n.idle != nil {
		t.idle.Remove(n.idle)
		n.idle = nil
	}
	unix.Close(n.fd)
	n.fd = -1
	t.fds--
}

// reopen opens the descriptor of a node that is in use, by way of its parents'. The
// table is unlocked in between: a file system of the host's may be slow.
func (t *nodes) reopen(n *node) error {
	type hop struct {
		n    *node
		name string
	}
	var hops []hop
	at := n
	for ; at.fd < 0; at = at.parent {
		if at.parent == nil || len(hops) == maxDepth {
			for _, s := range hops {
				t.unuse(s.n)
			}
			return unix.ESTALE
		}
		t.use(at)
		hops = append(hops, hop{at, at.name})
	}
	t.use(at)
	t.mu.Unlock()
	var err error
	for i := len(hops) - 1; i >= 0; i-- {
		s := hops[i]
		var fd int
		if err == nil {
			fd, err = openBelow(at, s.name, s.n)
		}
		t.mu.Lock()
		t.unuse(at)
		switch {
		case err != nil:
		case s.n.fd >= 0: // another request was faster
			unix.Close(fd)
		default:
			s.n.fd = fd
			t.fds++
		}
		t.mu.Unlock()
		at = s.n
	}
	t.mu.Lock()
	t.unuse(at)
	return err
}

// openBelow opens a node by its name, which it may not have any more.
func openBelow(parent *node, name string, want *node) (int, error) {
	fd, err := unix.Openat(parent.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return -1, unix.ESTALE // the guest looks it up anew
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && ((key{st.Dev, st.Ino}) != want.key || st.Mode&unix.S_IFMT != want.kind) {
		err = unix.ESTALE // numbers of files are used again
	}
	if err == nil && st.Dev != parent.key.dev {
		err = checkFileSystem(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// add counts one more lookup of the file with a name in a parent, and returns its node.
// The parent is in use; nil for a file without a name.
func (t *nodes) add(parent *node, name string, st *unix.Statx_t) (*node, error) {
	k := key{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	kind := uint32(st.Mode) & unix.S_IFMT
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n != nil && n.kind != kind {
		// A new file has the number of one that is gone.
		delete(t.byKey, k)
		n = nil
	}
	if n == nil {
		if len(t.byID) >= t.maximum {
			return nil, unix.ENFILE
		}
		t.last++
		n = &node{id: t.last, key: k, kind: kind, fd: -1}
		t.byID[n.id], t.byKey[k] = n, n
	}
	n.lookups++
	t.place(n, parent, name)
	return n, nil
}

// addOpen is add for a file that has just been made, whose node is then in use. It takes
// over fd, the file's O_PATH. dir is nil for one that has no name.
func (t *nodes) addOpen(fd int, dir *node, name string, st *unix.Statx_t) (*node, error) {
	n, err := t.add(dir, name, st)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.use(n)
	if n.fd >= 0 {
		unix.Close(fd) // another request has found it
	} else {
		n.fd = fd
		t.fds++
	}
	return n, nil
}

// place notes where a node was found.
func (t *nodes) place(n, parent *node, name string) {
	if n == t.root || parent == nil || n.parent == parent && n.name == name {
		return
	}
	depth := 0
	for p := parent; p != nil; p = p.parent {
		if depth++; p == n || depth > maxDepth {
			return // what was known of the parents is not so any more
		}
	}
	was := n.parent
	parent.children++
	n.parent, n.name = parent, name
	if was != nil {
		was.children--
		t.sweep(was)
	}
}

// moved notes the new place of what the guest has renamed.
func (t *nodes) moved(parent *node, name string) {
	var st unix.Stat_t
	if unix.Fstatat(parent.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key{st.Dev, st.Ino}]; n != nil {
		t.place(n, parent, name)
	}
}

// forget takes back what the guest was told so many times.
func (t *nodes) forget(id, times uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return
	}
	n.lookups -= min(n.lookups, times)
	t.sweep(n)
}

// sweep removes an unused node, and its parents that become unused.
func (t *nodes) sweep(n *node) {
	for n != nil && n != t.root && n.lookups == 0 && n.users == 0 && n.children == 0 {
		if n.fd >= 0 {
			t.closeFD(n)
		}
		delete(t.byID, n.id)
		if t.byKey[n.key] == n {
			delete(t.byKey, n.key)
		}
		up := n.parent
		if up != nil {
			up.children--
		}
		n.parent = nil
		n = up
	}
}

// close closes all descriptors but the root's. Nothing is in use any more.
func (t *nodes) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		if n != t.root && n.fd >= 0 {
			t.closeFD(n)
		}
	}
	t.byID, t.byKey = map[uint64]*node{}, map[key]*node{}
}

// kernels are file systems whose files are the kernel's doors, and not data: a file of
// /proc is the memory of a process, this one's among them (include/uapi/linux/magic.h).
var kernels = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true,
	unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.BPF_FS_MAGIC: true, unix.PSTOREFS_MAGIC: true, unix.EFIVARFS_MAGIC: true,
	unix.SELINUX_MAGIC: true, unix.SMACK_MAGIC: true, unix.BINFMTFS_MAGIC: true, unix.NSFS_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true,
	unix.RDTGROUP_SUPER_MAGIC: true, unix.XENFS_SUPER_MAGIC: true, unix.SOCKFS_MAGIC: true, unix.AAFS_MAGIC: true,
	0x62656570: true, // configfs
	0x65735543: true, // fusectl
	0x19800202: true, // mqueue
}

// checkFileSystem refuses those of the kernel's.
func checkFileSystem(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if kernels[int64(st.Type)] {
		return unix.EACCES
	}
	return nil
}
