package share

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/confine"
)

// Server serves a directory to one guest.
type Server struct {
	readOnly bool
	dir      *os.File // O_PATH
	proc     *os.File // /proc/self/fd, by which what is open is opened again
	dev      uint64   // of dir's file system
	user     uint32   // whose files are made
	nodes    *nodes
	handles  *handles
	policy   confine.Policy

	work    chan *request
	free    chan *request // to read the next message into
	workers int           // started; Serve's to know
	running sync.WaitGroup

	writing sync.Mutex
	conn    io.Writer
}

// Check says whether a directory can be served.
func Check(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	return s.Close()
}

// Open opens a directory to serve.
func Open(dir string, o Options) (*Server, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	s, err := newServer(f, o)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.Close())
	}
	return s, nil
}

func newServer(dir *os.File, o Options) (*Server, error) {
	if err := checkFileSystem(int(dir.Fd())); err != nil {
		return nil, errors.New("it is a file system of the kernel, such as /proc: share a directory with files")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	proc, err := os.OpenFile("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	files := maxFiles() / max(o.Among, 1)
	// An open file has a descriptor of its own and its node's.
	nodes, err := newNodes(int(dir.Fd()), files/2)
	if err != nil {
		proc.Close()
		return nil, err
	}
	s := &Server{readOnly: o.ReadOnly, dir: dir, proc: proc, dev: st.Dev, nodes: nodes, handles: newHandles(files / 2),
		work: make(chan *request), free: make(chan *request, maxWorkers+1)}
	for range cap(s.free) {
		s.free <- new(request)
	}
	// Root's server is the directory's owner, or root without capabilities.
	s.user = uint32(os.Geteuid())
	if s.user == 0 {
		s.user = st.Uid
	}
	s.policy = confine.Policy{User: int(st.Uid), Group: int(st.Gid), Thread: true}
	if o.ReadOnly {
		s.policy.Read = []string{confine.Opened(dir)}
	} else {
		s.policy.Write = []string{confine.Opened(dir)}
	}
	return s, nil
}

// maxFiles is a quarter of what the process may open.
func maxFiles() int {
	const least, most = 64, 1 << 15
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(min(max(limit.Cur/4, least), most))
}

// Close ends the workers and closes what a server has open, after Serve has returned.
func (s *Server) Close() error {
	close(s.work)
	s.running.Wait()
	s.handles.close()
	s.nodes.close()
	return errors.Join(s.dir.Close(), s.proc.Close())
}

// Serve answers the guest's messages until conn ends. It returns an error when it gives
// up before. It is called once.
func (s *Server) Serve(conn io.ReadWriter) error {
	s.conn = conn
	for {
		r := <-s.free
		if err := r.read(conn); errors.Is(err, errNoMessage) {
			return err
		} else if err != nil {
			return nil
		}
		if s.noted(r) {
			s.free <- r
			continue
		}
		select {
		case s.work <- r:
			continue
		default:
		}
		if s.workers < maxWorkers {
			if err := s.start(); err != nil {
				return err
			}
		}
		s.work <- r
	}
}

// noted does what has no answer.
func (s *Server) noted(r *request) bool {
	f := fields{rest: r.body}
	switch r.op {
	case opForget:
		s.nodes.forget(r.node, f.u64())
	case opBatchForget:
		n := f.u32()
		f.skip(4)
		for ; n > 0; n-- {
			id, times := f.u64(), f.u64()
			if f.bad {
				break // it says more than it has
			}
			s.nodes.forget(id, times)
		}
	default:
		return false
	}
	return true
}

// start starts one more worker, a thread that is confined to the directory.
func (s *Server) start() error {
	s.running.Add(1)
	err := confine.Start(s.policy, func(uintptr) error { return nil }, func() {
		defer s.running.Done()
		var a answer
		for r := range s.work {
			a.begin()
			errno := s.carryOut(r, &a)
			a.end(r.unique, int32(errno))
			s.free <- r
			s.send(a)
		}
	})
	if err != nil {
		s.running.Done()
		return err
	}
	s.workers++
	return nil
}

// send sends an answer. If the guest is gone, the reader finds that out.
func (s *Server) send(a answer) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, _ = s.conn.Write(a)
}

// changes are the operations that a read-only directory refuses; OPEN's flags say.
var changes = map[opcode]bool{
	opSetattr: true, opSymlink: true, opMknod: true, opMkdir: true, opUnlink: true, opRmdir: true, opRename: true, opRename2: true, opLink: true,
	opWrite: true, opSetxattr: true, opRemovexattr: true, opCreate: true, opTmpfile: true, opFallocate: true, opCopyFileRange: true,
}

// carryOut does what a message asks for and lays the answer out.
func (s *Server) carryOut(r *request, a *answer) unix.Errno {
	if s.readOnly && changes[r.op] {
		return unix.EROFS
	}
	err := s.operate(r, &fields{rest: r.body}, a)
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return unix.EIO
}

func (s *Server) operate(r *request, f *fields, a *answer) error {
	switch r.op {
	case opInit:
		return greet(f, a)
	case opDestroy:
		return nil
	case opLookup:
		return s.lookup(r, f, a)
	case opGetattr:
		return s.getattr(r, f, a)
	case opSetattr:
		return s.setattr(r, f, a)
	case opReadlink:
		return s.readlink(r, a)
	case opSymlink, opMknod, opMkdir:
		return s.make(r, f, a)
	case opUnlink:
		return s.remove(r, f, 0)
	case opRmdir:
		return s.remove(r, f, unix.AT_REMOVEDIR)
	case opRename, opRename2:
		return s.rename(r, f)
	case opLink:
		return s.link(r, f, a)
	case opCreate, opTmpfile:
		return s.create(r, f, a)
	case opOpen, opOpendir:
		return s.open(r, f, a)
	case opRelease, opReleasedir:
		s.handles.remove(f.u64())
		return nil
	case opRead:
		return s.read(f, a)
	case opWrite:
		return s.write(f, a)
	case opFsync, opFsyncdir:
		return s.fsync(f)
	case opFallocate:
		return s.fallocate(f)
	case opLseek:
		return s.lseek(f, a)
	case opCopyFileRange:
		return s.copyFileRange(f, a)
	case opReaddir, opReaddirplus:
		return s.readdir(r, f, a)
	case opStatfs:
		return s.statfs(r, a)
	case opGetxattr, opListxattr:
		return s.getxattr(r, f, a)
	case opSetxattr, opRemovexattr:
		return s.setxattr(r, f)
	case opIoctl:
		return unix.ENOTTY
	}
	// The guest's kernel does it by itself, or does without: locks, flushes, polls,
	// interrupts.
	return unix.ENOSYS
}

// greet agrees with the guest's kernel.
func greet(f *fields, a *answer) error {
	major, minor, readahead, flags := f.u32(), f.u32(), f.u32(), f.u32()
	if f.bad || major != versionMajor || minor < leastMinor {
		return unix.EPROTO
	}
	a.u32(versionMajor)
	a.u32(min(minor, versionMinor))
	a.u32(min(readahead, maxData))
	a.u32(flags & initWanted)
	a.u16(maxWorkers)         // requests that nobody waits for, at a time
	a.u16(maxWorkers * 3 / 4) // and how many are many
	a.u32(maxData)
	a.u32(1) // nanoseconds: times are exact
	a.u16(maxData / 4096)
	a.zeros(34)
	return nil
}
