package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Options of Receive.
type Options struct {
	// Name is the base name of what was asked for: under no other does anything
	// land in a directory. Empty only for a sender that is trusted.
	Name string
	// Content: the source is asked for what it holds, which goes to the
	// destination itself.
	Content bool
	// Trusted says that the sender is: setuid, setgid and sticky bits are kept,
	// modes are exact whatever the umask, and links of the destination are
	// followed wherever they lead.
	Trusted bool
	// Preserve gives what is there the mode, the time and, where the receiver
	// is root, the owner of the source, and what is new that owner, too.
	Preserve bool
	// Owner, when given, owns what is new.
	Owner *Owner
	// MaxSize bounds what is written, in bytes as the file system counts them;
	// 0 for half of what is free there, of a sender that is not trusted.
	MaxSize int64
	// MaxEntries bounds the number of files; 0 for the default.
	MaxEntries int64
	// Progress, if not nil, is called with what was received so far.
	Progress func(protocol.Copied)
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// Receive writes the stream that r reads to destination; see locate for where.
//
// The sender is taken for hostile. The first entry goes under a name of the
// receiver's choice. What comes below it must be in order, so that nothing comes
// twice and each file comes right after the directory that it is in; names are
// resolved below the destination with [os.Root], so that no link leads out of it.
// A file appears under its name when it is complete: a stream that breaks off
// leaves the files that were complete and no part of another. Only what is no
// regular file, and a link's target, is written as the data comes.
//
// The error is [ErrTooMuch] when the copy is larger than allowed; what was new of
// it is removed. Files that the sender could not read are in the result, and no
// error.
func Receive(ctx context.Context, r *protocol.Reader, destination string, o Options) (protocol.Copied, error) {
	rc := receiver{ctx: ctx, r: r, o: o, linked: map[string]inode{}}
	if rc.budget = (budget{most: o.MaxSize, left: o.MaxEntries}); rc.budget.left == 0 {
		rc.budget.left = defaultMaxEntries
	}
	defer rc.close()
	err := rc.run(destination)
	rc.copied.Written = rc.budget.taken
	switch {
	case err == nil || rc.whole == 0:
	case rc.whole == 1:
		err = fmt.Errorf("%w; one file was copied before", err)
	default:
		err = fmt.Errorf("%w; %d files were copied before", err, rc.whole)
	}
	return rc.copied, err
}

type receiver struct {
	ctx    context.Context // of this call only
	r      *protocol.Reader
	o      Options
	budget budget
	copied protocol.Copied
	whole  int64 // files that were copied, and are there
	told   int64

	top   string   // the path of tree
	shown string   // as errors name it
	tree  *os.Root // the directory that relative names are in
	// dir is the directory of the last name, so that a file costs one lookup.
	dir     *os.Root
	dirName string
	// levels are the directories on the way to the last name.
	levels []level
	// linked are the files that hard links may come for.
	linked      map[string]inode
	linkedNames int
}

// level is a directory of the tree that may get more files.
type level struct {
	entry entry
	last  string // the name that came last in it
	made  bool   // nothing was in it before
	// wrote are files of this stream in a directory that was not made by it: a
	// name that finds one of them is the same to the file system.
	wrote map[inode]bool
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
		return nil, unexpected(err)
	}
	switch t {
	case protocol.FrameEntry:
		if err := rc.budget.entry(); err != nil {
			return nil, err
		}
		rc.copied.Files++
		e := new(entry)
		return e, decode(payload, e)
	case protocol.FrameEnd:
		var end protocol.Copied
		if err := protocol.Decode(payload, &end); err != nil {
			return nil, err
		}
		rc.copied.Skipped, rc.copied.SkippedNames = end.Skipped, bounded(end.SkippedNames)
		rc.copied.Failed, rc.copied.FailedNames = end.Failed, bounded(end.FailedNames)
		return nil, nil
	case protocol.FrameError:
		return nil, protocol.DecodeError(payload)
	}
	return nil, fmt.Errorf("%w: type %d where a file was due", protocol.ErrMalformed, t)
}

// bounded are the first names, escaped.
func bounded(names []string) []string {
	names = names[:min(len(names), maxSkippedNames)]
	for i := range names {
		names[i] = printable(names[i])
	}
	return names
}

func (rc *receiver) run(destination string) error {
	first, err := rc.next()
	if err != nil {
		return err
	}
	if first == nil || !first.isFile() && first.kind != kindDir {
		return fmt.Errorf("%w: it begins with neither a file nor a directory", protocol.ErrMalformed)
	}
	if rc.o.Name == "" && rc.o.Trusted {
		rc.o.Name = first.name
	}
	if first.name != rc.o.Name || !cleanName(first.name) || strings.Contains(first.name, "/") {
		return fmt.Errorf("%w: it sends %s, and %s was asked for", protocol.ErrMalformed, printable(first.name), printable(rc.o.Name))
	}
	if rc.o.Content && first.isFile() {
		return named(first.name, syscall.ENOTDIR)
	}
	p, err := rc.locate(destination, first)
	if err != nil {
		return err
	}
	rc.shown = p.shown
	if p.parent != nil {
		defer p.parent.Close()
	}
	if !rc.o.Trusted && rc.budget.most == 0 && (p.parent != nil || !first.isFile()) {
		rc.budget.most = defaultMaxSize(filepath.Dir(p.path))
		rc.budget.ofFree = true
	}
	if first.isFile() {
		err = rc.single(first, p)
	} else {
		err = rc.receiveTree(first, p)
	}
	if err != nil {
		p.undo()
		if rc.ctx.Err() == nil {
			err = named(p.shown, err)
		}
	}
	return err
}

// single receives a file that is all there is.
func (rc *receiver) single(e *entry, p *place) error {
	if p.parent == nil {
		return rc.through(e, p)
	}
	var err error
	if rc.dir, err = p.parent.OpenRoot("."); err != nil {
		return cause(err)
	}
	rc.top = filepath.Dir(p.path)
	n, err := rc.begin(e, p.base, &level{})
	if err == nil {
		err = rc.content(n, e)
	}
	if err == nil {
		err = rc.last()
	}
	return n.end(rc, err)
}

// last reads the end of a stream, before the only file gets its name.
func (rc *receiver) last() error {
	e, err := rc.next()
	if err == nil && e != nil {
		err = fmt.Errorf("%w: files below a file", protocol.ErrMalformed)
	}
	if err == nil && rc.copied.Failed > 0 {
		err = fmt.Errorf("the file could not be read to its end: %s", strings.Join(rc.copied.FailedNames, ", "))
	}
	return err
}

func (rc *receiver) receiveTree(first *entry, p *place) (err error) {
	root := level{entry: *first}
	root.entry.name = "."
	rc.top = p.path
	if p.parent != nil {
		if root.made, err = makeDir(p.parent, p.base, first); err != nil {
			return err
		}
	}
	if p.parent != nil {
		rc.tree, err = p.parent.OpenRoot(p.base) // a link that came in between leads nowhere
	} else {
		rc.tree, err = os.OpenRoot(p.path)
	}
	if err != nil {
		return cause(err)
	}
	rc.levels = []level{root}
	for {
		var e *entry
		if e, err = rc.next(); err != nil || e == nil {
			break
		}
		if err = rc.add(e); err != nil {
			if rc.ctx.Err() == nil {
				err = named(rc.showing(e.name), err)
			}
			break
		}
		if e.kind != kindDir {
			rc.whole++
		}
	}
	for len(rc.levels) > 0 { // after an error, too: modes are more than the owner's until then
		if leaveErr := rc.leave(); err == nil {
			err = leaveErr
		}
	}
	if errors.Is(err, ErrTooMuch) && root.made {
		if removeErr := p.parent.RemoveAll(p.base); removeErr != nil {
			return errors.Join(err, named(p.shown, cause(removeErr)))
		}
		rc.whole = 0
	}
	return err
}

// makeDir makes a directory that is open to its owner until it is left. A
// directory that is there is kept, and so is a link to one.
func makeDir(root *os.Root, name string, e *entry) (made bool, err error) {
	err = root.Mkdir(name, fs.FileMode(e.mode&0o777)|0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err == nil, cause(err)
	}
	info, err := root.Stat(name)
	if err == nil && !info.IsDir() {
		return false, errors.New("a file is in the way of a directory")
	}
	return false, cause(err)
}

func (rc *receiver) add(e *entry) error {
	dirName, base := path.Split(e.name)
	parent := path.Clean(dirName) // "." for the tree itself
	for len(rc.levels) > 1 && rc.levels[len(rc.levels)-1].entry.name != parent {
		if err := rc.leave(); err != nil {
			return err
		}
	}
	in := &rc.levels[len(rc.levels)-1]
	if in.entry.name != parent || base <= in.last {
		return fmt.Errorf("%w: out of order", protocol.ErrMalformed)
	}
	if in.last = base; len(rc.levels) > maxDepth {
		return fmt.Errorf("%w: more than %d directories within each other", ErrTooMuch, maxDepth)
	}
	if err := rc.enter(parent); err != nil {
		return err
	}
	switch e.kind {
	case kindDir:
		return rc.directory(e, base, in)
	case kindLink:
		return rc.link(e, base, in)
	case kindHardLink:
		return rc.hardLink(e, base, in)
	}
	n, err := rc.begin(e, base, in)
	if err == nil {
		err = rc.content(n, e)
	}
	return n.end(rc, err)
}

func (rc *receiver) directory(e *entry, base string, in *level) error {
	if err := rc.budget.take(block); err != nil {
		return err
	}
	made, err := makeDir(rc.dir, base, e)
	switch {
	case err != nil && rc.o.Trusted:
		// A link may lead elsewhere.
		info, statErr := os.Stat(rc.path(e.name))
		if statErr != nil || !info.IsDir() {
			return err
		}
	case err != nil:
		return err
	case !made:
		if err := rc.fresh(in, base); err != nil {
			return err
		}
	}
	rc.wrote(in, base, nil)
	rc.levels = append(rc.levels, level{entry: *e, made: made})
	return nil
}

// path is the path of a name.
func (rc *receiver) path(name string) string { return filepath.Join(rc.top, filepath.FromSlash(name)) }

// showing is the path of a name as errors write it.
func (rc *receiver) showing(name string) string {
	return filepath.Join(rc.shown, filepath.FromSlash(name))
}

// enter makes a directory of the tree the current one. The sender has made it, or
// it was there.
func (rc *receiver) enter(name string) error {
	if rc.dir != nil && rc.dirName == name {
		return nil
	}
	dir, err := rc.tree.OpenRoot(name)
	if err != nil && rc.o.Trusted {
		dir, err = os.OpenRoot(rc.path(name))
	}
	if err != nil {
		return named(rc.showing(name), cause(err))
	}
	if rc.dir != nil {
		rc.dir.Close()
	}
	rc.dir, rc.dirName = dir, name
	return nil
}

// leave gives the last directory its mode and time: nothing more goes in. One
// that was there keeps what it had.
func (rc *receiver) leave() error {
	last := len(rc.levels) - 1
	l := rc.levels[last]
	rc.levels = rc.levels[:last]
	if !l.made && !rc.o.Preserve {
		return nil
	}
	e := &l.entry
	if err := rc.enter(e.name); err != nil {
		return err
	}
	err := rc.chown(e, l.made, func(uid, gid int) error { return rc.dir.Chown(".", uid, gid) })
	if err == nil {
		err = rc.dir.Chtimes(".", e.mtime, e.mtime) // before the mode, which may forbid it
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = rc.dir.Stat("."); err == nil {
			err = rc.dir.Chmod(".", rc.dirMode(e, info.Mode(), l.made))
		}
	}
	if err != nil {
		return named(rc.showing(e.name), cause(err))
	}
	return nil
}

// dirMode is the mode of a directory that was made with now: the umask has been
// applied to that, and the owner's rights were added.
func (rc *receiver) dirMode(e *entry, now fs.FileMode, made bool) fs.FileMode {
	if rc.exact() || !made {
		return rc.mode(e)
	}
	return now.Perm() &^ (0o700 &^ fs.FileMode(e.mode))
}

// exact says whether modes are the sender's whatever the umask.
func (rc *receiver) exact() bool { return rc.o.Trusted || rc.o.Preserve }

func (rc *receiver) mode(e *entry) fs.FileMode {
	mode := fs.FileMode(e.mode & 0o777)
	if rc.o.Trusted {
		for bit, value := range specialBits {
			if e.mode&value != 0 {
				mode |= bit
			}
		}
	}
	return mode
}

// chown gives a file the owner that it should have, if that is another than who
// made it.
func (rc *receiver) chown(e *entry, made bool, do func(uid, gid int) error) error {
	switch {
	case rc.o.Preserve && os.Geteuid() == 0:
		return do(int(e.uid), int(e.gid))
	case rc.o.Owner != nil && made:
		return do(rc.o.Owner.UID, rc.o.Owner.GID)
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
	const every = 1 << 20
	rc.copied.Bytes += n
	if rc.o.Progress != nil && rc.copied.Bytes-rc.told >= every {
		rc.told = rc.copied.Bytes
		rc.o.Progress(rc.copied)
	}
}
