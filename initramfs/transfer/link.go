package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// link makes a symbolic link. It replaces a file or link that is there: it cannot
// be written to.
func (rc *receiver) link(e *entry, base string, in *level) error {
	if err := rc.budget.take(block); err != nil {
		return err
	}
	if err := rc.replaceable(base, in); err != nil {
		return err
	}
	temp := tempName()
	if err := rc.dir.Symlink(e.target, temp); err != nil {
		return cause(err)
	}
	err := rc.chown(e, true, func(uid, gid int) error { return rc.dir.Lchown(temp, uid, gid) })
	if err == nil {
		err = rc.dir.Rename(temp, base)
	}
	if err != nil {
		_ = rc.dir.Remove(temp)
		return cause(err)
	}
	rc.wrote(in, base, nil)
	return nil
}

// replaceable says why a link cannot take a name.
func (rc *receiver) replaceable(base string, in *level) error {
	if in.made && rc.o.Trusted {
		return nil
	}
	info, err := rc.dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = rc.fresh(in, base)
	}
	if err == nil && info.IsDir() {
		err = errors.New("a directory is in the way of a link")
	}
	if err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
		err = errors.New("a device, FIFO or socket is in the way of a link")
	}
	return cause(err)
}

// remember notes a file that hard links may come for. There is a bound to it, of
// which the sender knows.
func (rc *receiver) remember(name string, info fs.FileInfo) {
	if rc.linkedNames += linkedSize(name); rc.linkedNames <= maxLinkedNames {
		rc.linked[name] = inodeOf(info)
	}
}

// hardLink gives a file that this stream has written another name. Where that
// cannot be, it is copied.
func (rc *receiver) hardLink(e *entry, base string, in *level) error {
	id, ok := rc.linked[e.target]
	if !ok || rc.tree == nil {
		return fmt.Errorf("%w: a hard link to a file that was not sent", protocol.ErrMalformed)
	}
	if info, err := rc.tree.Lstat(e.target); err != nil || inodeOf(info) != id {
		return rc.duplicate(e, base, in, id) // it was written to what a link leads to
	}
	if old, err := rc.dir.Lstat(base); err == nil {
		if inodeOf(old) == id {
			return nil // as it was left by a copy before
		}
		if !old.Mode().IsRegular() {
			return rc.duplicate(e, base, in, id)
		}
		if err := rc.fresh(in, base); err != nil {
			return err
		}
	}
	if err := rc.budget.take(block); err != nil {
		return err
	}
	temp := tempName()
	target := temp
	if rc.dirName != "." {
		target = rc.dirName + "/" + temp
	}
	if err := rc.tree.Link(e.target, target); err != nil {
		return rc.duplicate(e, base, in, id) // this file system may have none
	}
	if err := rc.dir.Rename(temp, base); err != nil {
		_ = rc.dir.Remove(temp)
		return cause(err)
	}
	return nil
}

// duplicate copies a file that this stream has written.
func (rc *receiver) duplicate(e *entry, base string, in *level, id inode) error {
	stat, open, name := rc.tree.Stat, rc.tree.Open, e.target
	if rc.o.Trusted {
		stat, open, name = os.Stat, os.Open, rc.path(e.target)
	}
	info, err := stat(name)
	if err != nil {
		return cause(err)
	}
	if inodeOf(info) != id || !info.Mode().IsRegular() {
		return errors.New("the target of this hard link is not a file here")
	}
	if err := rc.budget.take(info.Size()); err != nil {
		return err
	}
	from, err := open(name)
	if err != nil {
		return cause(err)
	}
	defer from.Close()
	e.mode, e.mtime = uint32(info.Mode().Perm()), info.ModTime()
	n, err := rc.begin(e, base, in)
	if err == nil {
		_, err = io.Copy(n.f, from)
	}
	return n.end(rc, err)
}
