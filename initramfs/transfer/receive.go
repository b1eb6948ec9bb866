package transfer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Options of Receive.
type Options struct {
	// MakeParents makes the missing parents of the destination.
	MakeParents bool
	// SpecialBits keeps setuid, setgid and sticky bits.
	SpecialBits bool
	// Owner, when given, owns what is written.
	Owner *Owner
	// MaxEntries bounds the number of files; 0 for the default.
	MaxEntries int64
	// Progress, when given, is told what was received so far.
	Progress func(protocol.Copied)
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

const defaultMaxEntries = 10 << 20

// Receive writes the stream that r reads to destination, as cp -r would: into
// it when it is a directory, else under its name.
//
// The sender is taken for hostile. Names are resolved below the destination
// with [os.Root], so that neither a name nor a link that came before leads out
// of it. A file appears under its name when it is complete: a stream that
// breaks off leaves the files that were complete and no part of another.
func Receive(r *protocol.Reader, destination string, o Options) (protocol.Copied, error) {
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	rc := receiver{r: r, o: o}
	defer rc.close()
	err := rc.run(destination)
	return rc.copied, err
}

type receiver struct {
	r      *protocol.Reader
	o      Options
	copied protocol.Copied
	told   int64

	tree *os.Root // the directory that relative names are in
	// dir is the directory of the last name, so that a file costs one lookup.
	dir     *os.Root
	dirName string
	// dirs get their mode and time at the end, when nothing more goes in.
	dirs []entry
}

func (rc *receiver) close() {
	for _, r := range []*os.Root{rc.dir, rc.tree} {
		if r != nil {
			r.Close()
		}
	}
}

// next reads an entry, or nil at the end.
func (rc *receiver) next() (*entry, error) {
	t, payload, err := rc.r.Next()
	if err != nil {
		return nil, err
	}
	switch t {
	case protocol.FrameEntry:
		if rc.copied.Files++; rc.copied.Files > rc.o.MaxEntries {
			return nil, fmt.Errorf("more than %d files", rc.o.MaxEntries)
		}
		e := new(entry)
		return e, decode(payload, e)
	case protocol.FrameEnd:
		var end protocol.Copied
		if err := protocol.Decode(payload, &end); err != nil {
			return nil, err
		}
		rc.copied.Skipped = end.Skipped
		rc.copied.SkippedNames = end.SkippedNames[:min(len(end.SkippedNames), maxSkippedNames)]
		return nil, nil
	case protocol.FrameError:
		return nil, protocol.DecodeError(payload)
	}
	return nil, fmt.Errorf("%w: type %d where a file was due", protocol.ErrMalformed, t)
}

func (rc *receiver) run(destination string) error {
	first, err := rc.next()
	if err != nil {
		return err
	}
	if first == nil || first.kind == kindLink || strings.Contains(first.name, "/") {
		return fmt.Errorf("%w: it begins with neither a file nor a directory", protocol.ErrMalformed)
	}
	parent, base, err := rc.place(destination, first)
	if err != nil {
		return err
	}
	if first.kind == kindFile {
		rc.dir = parent
		if err := rc.file(first, base); err != nil {
			return err
		}
		last, err := rc.next()
		if err == nil && last != nil {
			err = fmt.Errorf("%w: files below a file", protocol.ErrMalformed)
		}
		return err
	}
	defer parent.Close()
	if err := makeDir(parent, base); err != nil {
		return err
	}
	if rc.tree, err = parent.OpenRoot(base); err != nil {
		return pathError(err)
	}
	root := *first
	root.name = "."
	rc.dirs = append(rc.dirs, root)
	for {
		e, err := rc.next()
		if err != nil {
			return err
		}
		if e == nil {
			return rc.finishDirs()
		}
		if err := rc.add(e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
}

// place finds the directory and name under which the first entry goes.
func (rc *receiver) place(destination string, first *entry) (*os.Root, string, error) {
	dir, base := filepath.Split(filepath.Clean(destination))
	if info, err := os.Stat(destination); err == nil && info.IsDir() {
		dir, base = destination, first.name
	} else if strings.HasSuffix(destination, "/") && !rc.o.MakeParents {
		return nil, "", fmt.Errorf("directory %s does not exist", destination)
	} else if strings.HasSuffix(destination, "/") && first.kind == kindFile {
		dir, base = destination, first.name
	}
	if dir == "" {
		dir = "."
	}
	if rc.o.MakeParents {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, "", pathError(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("directory %s does not exist", dir)
	}
	if err != nil {
		return nil, "", pathError(err)
	}
	return root, base, nil
}

// makeDir makes a directory that is open to its owner until it is finished. A
// directory that is there is kept; anything else in its place is not.
func makeDir(root *os.Root, name string) error {
	err := root.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return pathError(err)
	}
	info, err := root.Lstat(name)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is in the way of a directory", name)
	}
	return pathError(err)
}

func (rc *receiver) add(e *entry) error {
	dirName, base := path.Split(e.name)
	if err := rc.enter(path.Clean(dirName)); err != nil {
		return err
	}
	switch e.kind {
	case kindDir:
		if err := makeDir(rc.dir, base); err != nil {
			return err
		}
		rc.dirs = append(rc.dirs, *e)
		return nil
	case kindLink:
		return rc.link(e, base)
	}
	return rc.file(e, base)
}

// enter makes a directory of the tree the current one. The sender must have
// made it: os.Root refuses to go through a link that leads out.
func (rc *receiver) enter(name string) error {
	if rc.dir != nil && rc.dirName == name {
		return nil
	}
	dir, err := rc.tree.OpenRoot(name)
	if err != nil {
		return pathError(err)
	}
	if rc.dir != nil {
		rc.dir.Close()
	}
	rc.dir, rc.dirName = dir, name
	return nil
}

func (rc *receiver) link(e *entry, base string) error {
	temp := tempName()
	if err := rc.dir.Symlink(e.target, temp); err != nil {
		return pathError(err)
	}
	err := rc.own(temp)
	if err == nil {
		err = rc.dir.Rename(temp, base)
	}
	if err != nil {
		_ = rc.dir.Remove(temp)
		return pathError(err)
	}
	return nil
}

func (rc *receiver) own(name string) error {
	if rc.o.Owner == nil {
		return nil
	}
	return rc.dir.Lchown(name, rc.o.Owner.UID, rc.o.Owner.GID)
}

func tempName() string { return ".lumina-" + rand.Text() }

// file writes a regular file under a temporary name and then gives it its own.
func (rc *receiver) file(e *entry, base string) (err error) {
	temp := tempName()
	f, err := rc.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return pathError(err)
	}
	defer func() {
		if err != nil {
			_ = rc.dir.Remove(temp)
		}
	}()
	err = rc.content(f, e)
	if err == nil {
		err = f.Chmod(rc.mode(e))
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return pathError(err)
	}
	if err := rc.own(temp); err != nil {
		return pathError(err)
	}
	if rc.o.Owner != nil && e.mode&0o6000 != 0 && rc.o.SpecialBits {
		// A change of owner clears these.
		if err := rc.dir.Chmod(temp, rc.mode(e)); err != nil {
			return pathError(err)
		}
	}
	if err := rc.dir.Chtimes(temp, e.mtime, e.mtime); err != nil {
		return pathError(err)
	}
	return pathError(rc.dir.Rename(temp, base))
}

func (rc *receiver) mode(e *entry) fs.FileMode {
	mode := fs.FileMode(e.mode & 0o777)
	if rc.o.SpecialBits {
		for bit, value := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
			if e.mode&value != 0 {
				mode |= bit
			}
		}
	}
	return mode
}

// content reads the data of a file. Holes are left as holes.
func (rc *receiver) content(f *os.File, e *entry) error {
	at, written := int64(0), int64(0)
	for at < e.size {
		t, payload, err := rc.r.Next()
		if err != nil {
			return unexpected(err)
		}
		n := int64(len(payload))
		switch t {
		case protocol.FrameChunk:
			if n == 0 || n > e.size-at {
				return fmt.Errorf("%w: %d bytes of data where %d are due", protocol.ErrMalformed, n, e.size-at)
			}
			if _, err := f.WriteAt(payload, at); err != nil {
				return err
			}
			written = at + n
		case protocol.FrameHole:
			if len(payload) != 8 {
				return fmt.Errorf("%w: hole of %d bytes", protocol.ErrMalformed, len(payload))
			}
			length := binary.BigEndian.Uint64(payload)
			if length == 0 || length > uint64(e.size-at) {
				return fmt.Errorf("%w: hole of %d bytes where %d are due", protocol.ErrMalformed, length, e.size-at)
			}
			n = int64(length)
		case protocol.FrameError:
			return protocol.DecodeError(payload)
		default:
			return fmt.Errorf("%w: type %d within a file", protocol.ErrMalformed, t)
		}
		at += n
		rc.count(n)
	}
	if written < e.size {
		return f.Truncate(e.size)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (rc *receiver) count(n int64) {
	const step = 1 << 20
	rc.copied.Bytes += n
	if rc.o.Progress != nil && rc.copied.Bytes-rc.told >= step {
		rc.told = rc.copied.Bytes
		rc.o.Progress(rc.copied)
	}
}

// finishDirs gives directories their mode and time, the deepest first.
func (rc *receiver) finishDirs() error {
	for i := len(rc.dirs) - 1; i >= 0; i-- {
		d := &rc.dirs[i]
		var err error
		if rc.o.Owner != nil {
			err = rc.tree.Lchown(d.name, rc.o.Owner.UID, rc.o.Owner.GID)
		}
		// A link that took the directory's place would be followed, within the
		// tree.
		err = errors.Join(err, rc.tree.Chmod(d.name, rc.mode(d)), rc.tree.Chtimes(d.name, d.mtime, d.mtime))
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, pathError(err))
		}
	}
	return nil
}
