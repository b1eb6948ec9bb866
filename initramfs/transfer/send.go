package transfer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// maxSkippedNames is how many skipped files are named.
const maxSkippedNames = 100

// SendOptions of Send.
type SendOptions struct {
	// Devices: a source that is a FIFO or a character device is read to its
	// end. Below a directory they are never read.
	Devices bool
	// Progress, if not nil, is called with what was sent so far.
	Progress func(protocol.Copied)
}

// Check says why Send would refuse a source at once.
func Check(source string, o SendOptions) error {
	_, _, err := find(source, o)
	return named(source, err)
}

// Send writes the file or tree at path to w. A symbolic link at path itself is
// followed, links below it are sent as links. A file below it that cannot be read
// is left out, and counted. The end of ctx interrupts the reading of a FIFO.
func Send(ctx context.Context, w io.Writer, path string, o SendOptions) (protocol.Copied, error) {
	// Small files are a few small frames each: one write for many.
	buffered := bufio.NewWriterSize(w, 2*protocol.MaxData)
	s := sender{w: protocol.NewWriter(buffered), o: o, source: path,
		frame: make([]byte, protocol.HeaderSize+protocol.MaxData), linked: map[inode]string{}, kernels: map[uint64]bool{}}
	err := s.start(ctx, path)
	if ctx.Err() == nil {
		err = named(path, err)
	}
	if err == nil {
		err = broken(s.w.Message(protocol.FrameEnd, s.copied))
	}
	if err != nil && !Broken(err) {
		// The receiver learns why; that it cannot is no news.
		told := &protocol.Error{Code: protocol.CodeFailed, Message: err.Error()}
		if errors.Is(err, fs.ErrNotExist) {
			told.Code = protocol.CodeNotFound
		}
		_ = s.w.Message(protocol.FrameError, told)
	}
	if flushErr := buffered.Flush(); err == nil {
		err = broken(flushErr)
	}
	return s.copied, err
}

type sender struct {
	w      *protocol.Writer
	o      SendOptions
	frame  []byte
	copied protocol.Copied
	told   int64 // bytes when progress was last told
	source string
	// linked are the names of files with several, by what they are.
	linked      map[inode]string
	linkedNames int             // bytes of names in linked
	device      uint64          // of the source
	kernels     map[uint64]bool // which devices are the kernel's own
}

type inode struct{ device, number uint64 }

// writeError is a failure of the stream rather than of a file.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// Broken says whether an error of Send is of the stream, and not of a file.
func Broken(err error) bool {
	var w *writeError
	return errors.As(err, &w)
}

func broken(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err}
}

// find resolves a source and says what is there. The caller names it in an error.
func find(path string, o SendOptions) (resolved string, info fs.FileInfo, err error) {
	if info, err = os.Stat(path); err != nil {
		return "", nil, cause(err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
	case isDirPath(path):
		return "", nil, syscall.ENOTDIR
	case mode.IsRegular():
	case o.Devices && (mode&fs.ModeNamedPipe != 0 || mode&fs.ModeCharDevice != 0):
		return path, info, nil
	default:
		return "", nil, errors.New("it is neither a file nor a directory")
	}
	if resolved, err = filepath.EvalSymlinks(path); err != nil {
		if info.IsDir() {
			return "", nil, cause(err)
		}
		// A link of /proc leads to what has no name.
		return path, info, nil
	}
	return resolved, info, nil
}

func (s *sender) start(ctx context.Context, path string) error {
	resolved, info, err := find(path, s.o)
	if err != nil {
		return err
	}
	base, err := baseOf(path)
	if err != nil {
		return err
	}
	s.device = inodeOf(info).device
	if info.IsDir() {
		return s.sendSource(resolved, base, info)
	}
	e := newEntry(info, base)
	e.kind = kindFile
	var f *os.File
	if info.Mode().IsRegular() {
		f, err = os.OpenFile(resolved, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		err = sameFile(f, info, err)
	} else {
		e.mode, e.mtime = 0o644, time.Now()
		f, err = openFIFO(ctx, resolved, os.O_RDONLY)
	}
	if err != nil {
		return cause(err)
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	_, err = s.sendFile(f, info, e)
	return err
}

// errChanged is of what has become something else since it was looked at. A guest can
// put a link in the place of a directory that it shares with the host, and so lead the
// host out of it.
var errChanged = errors.New("it was changed while it was read")

// sameFile says what is wrong with a file that was opened, unless it is the one that
// info is of. It closes what is not.
func sameFile(f *os.File, info fs.FileInfo, err error) error {
	if err != nil {
		return err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(now, info) {
		err = errChanged
	}
	if err != nil {
		f.Close()
	}
	return err
}

// directory is an open directory. Names below it are looked up in it, so that no link
// that takes the place of a directory is followed.
type directory struct {
	root *os.Root
	self *os.File
}

// openDirectory opens a directory of root that info is of.
func openDirectory(root *os.Root, name string, info fs.FileInfo) (*directory, error) {
	sub, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	self, err := sub.Open(".")
	if err = sameFile(self, info, err); err != nil {
		sub.Close()
		return nil, err
	}
	return &directory{sub, self}, nil
}

func (d *directory) Close() { d.self.Close(); d.root.Close() }

// names are those of a directory, in order.
func (d *directory) names() ([]string, error) {
	names, err := d.self.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// sendSource sends the directory that was asked for, and all below it.
func (s *sender) sendSource(path, name string, info fs.FileInfo) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return cause(err)
	}
	defer root.Close()
	d, err := openDirectory(root, ".", info)
	if err != nil {
		return cause(err)
	}
	defer d.Close()
	names, err := d.names()
	if err != nil {
		return cause(err)
	}
	e := newEntry(info, name)
	e.kind = kindDir
	if err := s.sendEntry(e); err != nil {
		return err
	}
	return s.sendChildren(d, "", names, 1)
}

func newEntry(info fs.FileInfo, name string) *entry {
	mode := info.Mode()
	e := &entry{mode: uint32(mode.Perm()), mtime: info.ModTime(), name: name}
	for bit, value := range specialBits {
		if mode&bit != 0 {
			e.mode |= value
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.uid, e.gid = st.Uid, st.Gid
	}
	return e
}

var specialBits = map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000}

// send sends what has a name in a directory, and all below it. Its path below the
// source is name, at so many directories' depth.
func (s *sender) send(in *directory, base, name string, depth int) error {
	info, err := in.root.Lstat(base)
	if err != nil {
		return s.failed(name, err)
	}
	e := newEntry(info, name)
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return s.sendNames(in, base, e, info)
	case mode.IsDir():
		return s.sendDir(in, base, e, info, depth)
	case mode&fs.ModeSymlink != 0:
		target, err := in.root.Readlink(base)
		if err != nil {
			return s.failed(name, err)
		}
		e.kind, e.target = kindLink, target
		return s.sendEntry(e)
	}
	s.skip(name)
	return nil
}

// skip counts what is not copied: it is no file, directory or link.
func (s *sender) skip(name string) {
	if s.copied.Skipped++; s.copied.Skipped <= maxSkippedNames {
		s.copied.SkippedNames = append(s.copied.SkippedNames, name)
	}
}

func (s *sender) sendDir(in *directory, base string, e *entry, info fs.FileInfo, depth int) error {
	e.kind = kindDir
	d, err := openDirectory(in.root, base, info)
	var names []string
	if err == nil {
		defer d.Close()
		if s.mountOfKernel(d.self, info) {
			s.skip(e.name)
			return nil
		}
		names, err = d.names()
	}
	if errors.Is(err, errChanged) {
		return s.failed(e.name, err)
	}
	if sendErr := s.sendEntry(e); sendErr != nil {
		return sendErr
	}
	if err != nil {
		return s.failed(e.name, err)
	}
	return s.sendChildren(d, e.name+"/", names, depth+1)
}

// mountOfKernel says whether a directory is where another file system than the
// source's begins, one that is the kernel's own, as /proc and /sys: what is in them
// is no content, and some of it has no end.
func (s *sender) mountOfKernel(f *os.File, info fs.FileInfo) bool {
	return inodeOf(info).device != s.device && s.isKernels(f, info)
}

// isKernels says whether a file is in a file system that is the kernel's own.
func (s *sender) isKernels(f *os.File, info fs.FileInfo) bool {
	device := inodeOf(info).device
	is, known := s.kernels[device]
	if !known {
		is = isKernels(f)
		s.kernels[device] = is
	}
	return is
}

// sendNames sends a regular file: the content with its first name, a hard link
// with each further one.
func (s *sender) sendNames(in *directory, base string, e *entry, info fs.FileInfo) error {
	e.kind = kindFile
	var id inode
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		id = inode{uint64(st.Dev), st.Ino}
		if first, ok := s.linked[id]; ok {
			e.kind, e.target = kindHardLink, first
			return s.sendEntry(e)
		}
		if s.linkedNames += linkedSize(e.name); s.linkedNames <= maxLinkedNames {
			e.kind = kindLinked
		}
	}
	f, err := in.root.OpenFile(base, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err = sameFile(f, info, err); err != nil {
		return s.failed(e.name, err)
	}
	defer f.Close()
	whole, err := s.sendFile(f, info, e)
	if whole && e.kind == kindLinked {
		s.linked[id] = e.name
	}
	return err
}

// failed counts a file that cannot be read; one that was removed meanwhile is
// none.
func (s *sender) failed(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // ESRCH: of a process in /proc
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	if s.copied.Failed++; s.copied.Failed <= maxSkippedNames {
		s.copied.FailedNames = append(s.copied.FailedNames, fmt.Sprintf("%s: %v", printable(name), err))
	}
	return nil
}

func (s *sender) sendEntry(e *entry) error {
	frame, err := e.encode()
	if err != nil {
		return named(filepath.Join(s.source, filepath.FromSlash(e.name)), err)
	}
	s.copied.Files++
	return broken(s.w.Data(protocol.FrameEntry, frame))
}

func (s *sender) sendChildren(d *directory, below string, names []string, depth int) error {
	for _, base := range names {
		name := below + base
		var err error
		if len(name) > maxName || depth > maxDepth {
			err = s.failed(name, syscall.ENAMETOOLONG)
		} else {
			err = s.send(d, base, name, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendFile sends a file to its end, whatever size it claims: files of /proc claim
// none, and others grow or shrink meanwhile. It says whether all of it was sent.
func (s *sender) sendFile(f *os.File, info fs.FileInfo, e *entry) (whole bool, err error) {
	source, begun := s.copied.Files == 0, false
	at, size := int64(0), info.Size()
	regular := info.Mode().IsRegular() && size > 0
	from := io.Reader(f)
	if info.Mode().IsRegular() && s.isKernels(f, info) {
		regular = false // its size says nothing
		if from, err = readKernels(f); err != nil {
			return false, cause(err)
		}
	}
	for {
		hole := int64(0)
		if regular {
			if hole, err = holeAt(f, at, size); err != nil {
				return false, cause(err)
			}
		}
		n := 0
		if hole == 0 {
			n, err = from.Read(s.frame[protocol.HeaderSize:])
		}
		if err != nil && !errors.Is(err, io.EOF) {
			switch {
			case source:
				return false, cause(err)
			case !begun:
				return false, s.failed(e.name, err)
			}
			_ = s.failed(e.name, err)
			return false, broken(s.w.Data(protocol.FrameDrop, s.frame[:protocol.HeaderSize]))
		}
		if !begun { // only now: a file that cannot be read is left out as a whole
			begun = true
			if err := s.sendEntry(e); err != nil {
				return false, err
			}
		}
		if hole > 0 {
			frame := binary.BigEndian.AppendUint64(make([]byte, protocol.HeaderSize), uint64(hole))
			if err := s.w.Data(protocol.FrameHole, frame); err != nil {
				return false, broken(err)
			}
		} else if n > 0 {
			if err := s.w.Data(protocol.FrameChunk, s.frame[:protocol.HeaderSize+n]); err != nil {
				return false, broken(err)
			}
		}
		at += hole + int64(n)
		s.count(hole + int64(n))
		// A short read at the size is the end: another one to see it would be a
		// good part of what a small file costs.
		if hole == 0 && (n == 0 || regular && n < protocol.MaxData && at >= size) {
			return true, broken(s.w.Data(protocol.FrameChunk, s.frame[:protocol.HeaderSize]))
		}
	}
}

func (s *sender) count(n int64) {
	const every = 1 << 20
	s.copied.Bytes += n
	if s.o.Progress != nil && s.copied.Bytes-s.told >= every {
		s.told = s.copied.Bytes
		s.o.Progress(s.copied)
	}
}
