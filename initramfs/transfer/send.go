package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// maxSkippedNames is how many skipped files are named.
const maxSkippedNames = 100

// Send writes the file or tree at path to w. A symbolic link at path itself is
// followed, links below it are sent as links. progress, when given, is told
// what was sent so far.
func Send(w io.Writer, path string, progress func(protocol.Copied)) (protocol.Copied, error) {
	// Small files are a few small frames each: one write for many.
	buffered := bufio.NewWriterSize(w, 2*protocol.MaxData)
	s := sender{w: protocol.NewWriter(buffered), progress: progress,
		frame: make([]byte, protocol.HeaderSize+protocol.MaxData)}
	err := s.start(path)
	if err == nil {
		err = s.w.Message(protocol.FrameEnd, s.copied)
	} else {
		var broken *writeError
		if !errors.As(err, &broken) {
			// The receiver learns why; that it cannot is no news.
			_ = s.w.Message(protocol.FrameError, &protocol.Error{Code: protocol.CodeFailed, Message: err.Error()})
		}
	}
	if flushErr := buffered.Flush(); err == nil {
		err = flushErr
	}
	return s.copied, err
}

type sender struct {
	w        *protocol.Writer
	frame    []byte
	copied   protocol.Copied
	progress func(protocol.Copied)
	told     int64 // bytes when progress was last told
}

// writeError is a failure of the stream rather than of a file.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func broken(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err}
}

func (s *sender) start(path string) error {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return pathError(err)
	}
	info, err := os.Lstat(resolved)
	if err != nil {
		return pathError(err)
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("%s is neither a file nor a directory", path)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	base := filepath.Base(absolute)
	if base == string(filepath.Separator) {
		base = "root" // the file system's root has no name
	}
	return s.send(resolved, base, "", info)
}

// pathError leaves the name of the system call out.
func pathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// send sends one file, and all below it; below is what names of those begin
// with.
func (s *sender) send(path, name, below string, info fs.FileInfo) error {
	mode := info.Mode()
	e := entry{mode: uint32(mode.Perm()), mtime: info.ModTime(), name: name}
	for bit, value := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			e.mode |= value
		}
	}
	switch {
	case mode.IsRegular():
		e.kind, e.size = kindFile, info.Size()
		return s.sendFile(path, &e)
	case mode.IsDir():
		e.kind = kindDir
		if err := s.sendEntry(&e); err != nil {
			return err
		}
		return s.sendDir(path, below)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return pathError(err)
		}
		e.kind, e.target = kindLink, target
		return s.sendEntry(&e)
	}
	if s.copied.Skipped++; s.copied.Skipped <= maxSkippedNames {
		s.copied.SkippedNames = append(s.copied.SkippedNames, name)
	}
	return nil
}

func (s *sender) sendEntry(e *entry) error {
	frame, err := e.encode()
	if err != nil {
		return err
	}
	s.copied.Files++
	return broken(s.w.Data(protocol.FrameEntry, frame))
}

func (s *sender) sendDir(path, below string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return pathError(err)
	}
	for _, child := range entries {
		info, err := child.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return pathError(err)
		}
		name := below + child.Name()
		if err := s.send(filepath.Join(path, child.Name()), name, name+"/", info); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) sendFile(path string, e *entry) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return pathError(err)
	}
	defer f.Close()
	if err := s.sendEntry(e); err != nil {
		return err
	}
	for at := int64(0); at < e.size; {
		hole, err := holeAt(f, at, e.size)
		if err != nil {
			return pathError(err)
		}
		if hole > 0 {
			frame := binary.BigEndian.AppendUint64(make([]byte, protocol.HeaderSize), uint64(hole))
			if err := s.w.Data(protocol.FrameHole, frame); err != nil {
				return broken(err)
			}
			at += hole
			s.count(hole)
			continue
		}
		n, err := f.ReadAt(s.frame[protocol.HeaderSize:][:min(e.size-at, protocol.MaxData)], at)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("it became shorter while it was copied")
			}
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := s.w.Data(protocol.FrameChunk, s.frame[:protocol.HeaderSize+n]); err != nil {
			return broken(err)
		}
		at += int64(n)
		s.count(int64(n))
	}
	return nil
}

func (s *sender) count(n int64) {
	const step = 1 << 20
	s.copied.Bytes += n
	if s.progress != nil && s.copied.Bytes-s.told >= step {
		s.told = s.copied.Bytes
		s.progress(s.copied)
	}
}
