package transfer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// newFile is a file that is being written. Mostly it has a temporary name.
type newFile struct {
	f    *os.File
	e    *entry
	in   *level
	base string
	// temp is its name until it is complete; empty when the file that is there
	// is written itself.
	temp     string
	old      fs.FileInfo // what the name stands for before; nil for nothing
	regular  bool
	dropped  bool // the sender could not read it to its end
	stopWait func() bool
}

func tempName() string { return ".lumina-" + rand.Text() }

// begin opens a file for the content of an entry.
func (rc *receiver) begin(e *entry, base string, in *level) (*newFile, error) {
	n := &newFile{e: e, in: in, base: base, regular: true}
	// In a directory that this trusted stream has made there is nothing.
	if !in.made || !rc.o.Trusted {
		info, err := rc.dir.Lstat(base)
		switch {
		case err == nil:
			n.old = info
		case !errors.Is(err, fs.ErrNotExist):
			return nil, cause(err)
		}
	}
	if n.old == nil {
		return n, rc.temporary(n)
	}
	if err := rc.fresh(in, base); err != nil {
		return nil, err
	}
	switch mode := n.old.Mode(); {
	case mode.IsDir():
		return nil, errors.New("a directory is in the way of a file")
	case !mode.IsRegular(), rc.o.Trusted && links(n.old) > 1, !canOwn(n.old):
		return n, rc.openOld(n)
	}
	err := rc.temporary(n)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrNotExist) {
		return n, rc.openOld(n) // the directory is not ours, or the kernel's as /proc/sys; the file may be
	}
	return n, err
}

// fresh is an error when a name stands for what this stream has written under
// another: to this file system they are the same.
func (rc *receiver) fresh(in *level, base string) error {
	if rc.o.Trusted {
		return nil
	}
	same := in.made
	if !same && in.wrote != nil {
		if info, err := rc.dir.Lstat(base); err == nil {
			same = in.wrote[inodeOf(info)]
		}
	}
	if same {
		return errors.New("this file system treats the name as equal to that of an earlier file")
	}
	return nil
}

// wrote remembers what was written in a directory that had files before.
func (rc *receiver) wrote(in *level, base string, info fs.FileInfo) {
	if rc.o.Trusted || in.made {
		return
	}
	if info == nil {
		var err error
		if info, err = rc.dir.Lstat(base); err != nil {
			return
		}
	}
	if in.wrote == nil {
		in.wrote = map[inode]bool{}
	}
	in.wrote[inodeOf(info)] = true
}

func inodeOf(info fs.FileInfo) inode {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return inode{uint64(st.Dev), st.Ino}
	}
	return inode{}
}

func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// patience bounds the wait for a FIFO's reader where nobody can interrupt it: in
// the guest, which does not hear of a sender that goes before it reads on.
func (rc *receiver) patience() (context.Context, context.CancelFunc) {
	if !rc.o.Trusted {
		return rc.ctx, func() {}
	}
	return context.WithTimeoutCause(rc.ctx, time.Minute, errors.New("nothing has opened the FIFO for reading for a minute"))
}

// canOwn says whether a new file can have the owner of an old one.
func canOwn(old fs.FileInfo) bool {
	st, ok := old.Sys().(*syscall.Stat_t)
	return !ok || os.Geteuid() == 0 || int(st.Uid) == os.Geteuid()
}

func (rc *receiver) temporary(n *newFile) (err error) {
	temp := tempName()
	mode := fs.FileMode(n.e.mode & 0o777) // the umask is applied to it
	if rc.exact() || n.old != nil {
		mode = 0o600 // until it is set
	}
	if n.f, err = rc.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode); err != nil {
		return cause(err)
	}
	n.temp = temp
	return nil
}

// openOld opens what is there to be written itself: a device, a FIFO, what a link
// leads to. Of a sender that is not trusted a link leads nowhere out of the tree.
func (rc *receiver) openOld(n *newFile) (err error) {
	// The only file of a stream has its place by its base name.
	root, name := rc.tree, n.e.name
	if root == nil {
		root, name = rc.dir, n.base
	}
	stat, openFile := root.Stat, func(flag int) (*os.File, error) { return root.OpenFile(name, flag, 0) }
	if rc.o.Trusted {
		name = rc.path(name)
		stat, openFile = os.Stat, func(flag int) (*os.File, error) { return os.OpenFile(name, flag, 0) }
	}
	info, err := stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("a link to a missing file is in the way")
	case err != nil:
		return fmt.Errorf("what is there cannot be written to: %w", cause(err))
	case info.IsDir():
		return errors.New("a link to a directory is in the way of a file")
	}
	flag := os.O_WRONLY
	if n.regular = info.Mode().IsRegular(); n.regular {
		flag |= os.O_TRUNC
	}
	n.old = info
	ctx, cancel := rc.patience()
	defer cancel()
	if n.f, err = open(ctx, flag, openFile); err != nil {
		return cause(err)
	}
	rc.interruptible(n)
	return nil
}

// interruptible lets the end of ctx end a write that waits for a reader.
func (rc *receiver) interruptible(n *newFile) {
	f := n.f
	n.stopWait = context.AfterFunc(rc.ctx, func() { f.Close() })
}

// through writes the only file of a stream to what is not a regular file.
func (rc *receiver) through(e *entry, p *place) (err error) {
	n := &newFile{e: e, f: p.output, in: &level{}}
	if n.f == nil {
		ctx, cancel := rc.patience()
		defer cancel()
		if n.f, err = openFIFO(ctx, p.path, os.O_WRONLY); err != nil {
			return cause(err)
		}
	}
	rc.interruptible(n)
	if err = rc.content(n, e); err == nil {
		err = rc.last()
	}
	return n.end(rc, err)
}

// content reads the data of a file. Holes are left as holes.
func (rc *receiver) content(n *newFile, e *entry) error {
	at, data := int64(0), int64(0)
	hole := false // it ends with one
	for {
		t, payload, err := rc.r.Next()
		if err != nil {
			return unexpected(err)
		}
		length := int64(len(payload))
		switch t {
		case protocol.FrameChunk:
			if length == 0 {
				if !n.regular {
					return nil
				}
				if hole {
					err = n.f.Truncate(at)
				}
				return errors.Join(err, rc.budget.take(rounding(data)))
			}
			if err := rc.budget.take(length); err != nil {
				return err
			}
			if n.regular {
				_, err = n.f.WriteAt(payload, at)
				if errors.Is(err, syscall.ESPIPE) && at == 0 {
					n.regular = false // in name only, as files of /proc
				}
			}
			if !n.regular {
				_, err = n.f.Write(payload)
			}
			if err != nil {
				return rc.interrupted(err)
			}
			data += length
			hole = false
		case protocol.FrameHole:
			if len(payload) != 8 {
				return fmt.Errorf("%w: hole of %d bytes", protocol.ErrMalformed, len(payload))
			}
			claimed := binary.BigEndian.Uint64(payload)
			if claimed == 0 || claimed > uint64(1<<62-at) {
				return fmt.Errorf("%w: hole of %d bytes at %d", protocol.ErrMalformed, claimed, at)
			}
			length = int64(claimed)
			if !n.regular {
				err = rc.zeros(n.f, length)
			} else if err = rc.budget.claim(length); err == nil {
				hole = true
			}
			if err != nil {
				return rc.interrupted(err)
			}
		case protocol.FrameDrop:
			n.dropped = true
			return nil
		case protocol.FrameError:
			return protocol.DecodeError(payload)
		default:
			return fmt.Errorf("%w: type %d within a file", protocol.ErrMalformed, t)
		}
		at += length
		rc.count(length)
	}
}

// interrupted is why a write ended, when that was the caller's end.
func (rc *receiver) interrupted(err error) error {
	if errors.Is(err, os.ErrClosed) && rc.ctx.Err() != nil {
		return context.Cause(rc.ctx)
	}
	return cause(err)
}

// zeros writes the hole of a file to what has none.
func (rc *receiver) zeros(w io.Writer, n int64) error {
	zero := make([]byte, min(n, protocol.MaxData))
	for n > 0 {
		piece := zero[:min(n, int64(len(zero)))]
		if err := rc.budget.take(int64(len(piece))); err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		n -= int64(len(piece))
	}
	return nil
}

// end gives a file that is complete its name, and removes any other.
func (n *newFile) end(rc *receiver, err error) error {
	if n == nil || n.f == nil {
		return err
	}
	if n.stopWait != nil {
		n.stopWait()
	}
	complete := err == nil && !n.dropped
	if complete {
		err = n.finish(rc)
	}
	if closeErr := n.f.Close(); err == nil && !errors.Is(closeErr, os.ErrClosed) {
		err = closeErr
	}
	if n.temp == "" {
		return cause(err)
	}
	if complete && err == nil {
		err = n.rename(rc)
	} else {
		_ = rc.dir.Remove(n.temp)
	}
	return cause(err)
}

// finish sets mode, owner and time. What was there keeps its own.
func (n *newFile) finish(rc *receiver) error {
	made := n.old == nil
	if n.e.kind == kindLinked || !rc.o.Trusted && !n.in.made {
		info, err := n.f.Stat()
		if err != nil {
			return err
		}
		if n.e.kind == kindLinked {
			rc.remember(n.e.name, info)
		}
		if n.temp != "" {
			rc.wrote(n.in, n.base, info)
		}
	}
	if n.temp == "" && (!rc.o.Preserve || !n.regular) {
		return nil
	}
	mode, change := rc.mode(n.e), rc.exact()
	if !made && !rc.o.Preserve {
		// Content of the guest's is never setuid on the host, though what it
		// replaces was.
		if mode, change = n.old.Mode().Perm(), true; rc.o.Trusted {
			mode = n.old.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		}
		if st, ok := n.old.Sys().(*syscall.Stat_t); ok {
			err := n.f.Chown(int(st.Uid), int(st.Gid))
			if err != nil && (os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission)) {
				return err
			}
		}
	} else if err := rc.chown(n.e, made, n.f.Chown); err != nil {
		return err
	}
	if change {
		if err := n.f.Chmod(mode); err != nil { // after the owner, whose change clears bits
			return err
		}
	}
	if n.temp == "" {
		return nil
	}
	return rc.dir.Chtimes(n.temp, n.e.mtime, n.e.mtime)
}

func (n *newFile) rename(rc *receiver) error {
	err := rc.dir.Rename(n.temp, n.base)
	if errors.Is(err, syscall.EBUSY) {
		// Something is mounted on it, as on a container's /etc/hosts.
		err = rc.copyOver(n)
	}
	if err != nil {
		_ = rc.dir.Remove(n.temp)
	}
	return cause(err)
}

// copyOver writes a complete file to what has its name.
func (rc *receiver) copyOver(n *newFile) error {
	from, err := rc.dir.Open(n.temp)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := rc.dir.OpenFile(n.base, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close(), rc.dir.Remove(n.temp))
}
