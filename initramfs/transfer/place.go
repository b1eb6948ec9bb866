package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

var errDangling = errors.New("it is a link to a missing file")

// place is where the first entry goes.
type place struct {
	path   string   // with the name
	shown  string   // path as the destination was given: no link of it is resolved
	parent *os.Root // the directory of the name; nil when the path is written through
	base   string
	made   []string // directories that were made for it, the deepest last
	output *os.File // the process's own output, where the path is that
}

// locate finds the place of the first entry, by the rules of cp -r and rsync:
//
//	DST is a directory            into it: DST/NAME; the content of SRC/: DST itself
//	DST/ is not there             it is made, then as above
//	DST is not there              DST, its missing parents are made
//	DST is a file, a device, …    a file is written to it; a directory is refused
//
// Links of the destination are followed: they are the receiver's own. Those in it may not
// be, such as in a directory that a guest shares: of a sender that is not trusted NAME does
// not lead out of DST.
func (rc *receiver) locate(destination string, first *entry) (*place, error) {
	p := &place{path: destination, shown: destination}
	info, err := os.Stat(destination)
	if errors.Is(err, fs.ErrNotExist) {
		if link, err := os.Lstat(strings.TrimRight(destination, "/")); err == nil && link.Mode()&fs.ModeSymlink != 0 {
			return nil, named(destination, errDangling)
		}
		into := isDirPath(destination) && !rc.o.Content
		dir := filepath.Dir(filepath.Clean(destination))
		if into {
			dir = destination
		}
		if err := p.makeDirs(dir); err != nil {
			return nil, err
		}
		if !into {
			return p, p.open(filepath.Clean(destination))
		}
		info, err = os.Stat(destination)
		if err != nil {
			return nil, named(destination, cause(err))
		}
	} else if err != nil {
		return nil, named(destination, cause(err))
	}
	if !info.IsDir() && isDirPath(destination) {
		return nil, named(destination, syscall.ENOTDIR)
	}
	if p.output = rc.ownOutput(info); p.output != nil && first.isFile() {
		return p, nil
	}
	if info.IsDir() && !rc.o.Content {
		p.path = filepath.Join(destination, rc.o.Name)
		p.shown = p.path
		if !rc.o.Trusted {
			return p, rc.within(p, destination, first)
		}
		if info, err = os.Stat(p.path); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(p.path); err == nil {
				return nil, named(p.shown, errDangling)
			}
			return p, p.open(p.path)
		} else if err != nil {
			return nil, named(p.shown, cause(err))
		}
	}
	if err := fits(first, info); err != nil {
		return nil, named(p.shown, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return p, nil
	}
	// Where a link leads is where it is written.
	real, err := filepath.EvalSymlinks(p.path)
	if err != nil {
		if info.IsDir() {
			return nil, named(p.shown, cause(err))
		}
		return p, nil // a link of /proc
	}
	return p, p.open(real)
}

// fits says whether the first entry can go where something is.
func fits(first *entry, info fs.FileInfo) error {
	switch {
	case first.kind == kindDir && !info.IsDir():
		return errors.New("it is not a directory, but the source is one")
	case first.isFile() && info.IsDir():
		return errors.New("it is a directory, but the source is not")
	}
	return nil
}

// within is locate for a name in a directory that is there.
func (rc *receiver) within(p *place, dir string, first *entry) (err error) {
	p.base = rc.o.Name
	if p.parent, err = os.OpenRoot(dir); err != nil {
		p.undo()
		return named(dir, cause(err))
	}
	info, err := p.parent.Lstat(p.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = p.parent.Stat(p.base)
		if errors.Is(err, fs.ErrNotExist) {
			err = errDangling
		} else if _, outside := os.Stat(p.path); err != nil && (outside == nil || errors.Is(outside, fs.ErrNotExist)) {
			err = fmt.Errorf("it is a link out of %s", dir)
		}
	}
	if err == nil {
		err = fits(first, info)
	}
	if err != nil {
		p.parent.Close()
		p.undo()
		return named(p.shown, cause(err))
	}
	return nil
}

// ownOutput is this process's standard output or error, when a file is that: as
// /dev/stdout is. Opened anew it would be written from its beginning on.
func (rc *receiver) ownOutput(info fs.FileInfo) *os.File {
	if rc.o.Trusted || info.IsDir() {
		return nil
	}
	for _, f := range []*os.File{os.Stdout, os.Stderr} {
		if own, err := f.Stat(); err == nil && os.SameFile(own, info) {
			if fd, err := syscall.Dup(int(f.Fd())); err == nil {
				return os.NewFile(uintptr(fd), f.Name())
			}
		}
	}
	return nil
}

// open opens the parent of a path.
func (p *place) open(path string) (err error) {
	p.path, p.base = path, filepath.Base(path)
	if p.base == "." || p.base == ".." || p.base == string(filepath.Separator) {
		return nil // a directory that is there, by another name
	}
	if p.parent, err = os.OpenRoot(filepath.Dir(path)); err != nil {
		p.undo()
		return named(filepath.Dir(p.shown), cause(err))
	}
	return nil
}

// makeDirs makes a directory and its missing parents.
func (p *place) makeDirs(dir string) error {
	dir = filepath.Clean(dir)
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			p.undo()
			return named(missing[i], cause(err))
		}
		p.made = append(p.made, missing[i])
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		p.undo()
	}
	return named(dir, cause(err))
}

// undo removes the directories that were made, where nothing came into them.
func (p *place) undo() {
	for i := len(p.made) - 1; i >= 0; i-- {
		_ = os.Remove(p.made[i])
	}
	p.made = nil
}

// CheckDestination says why a file or directory could not be received at a
// destination whose missing parents are made: before there is anything to
// receive.
func CheckDestination(destination string) error {
	d := filepath.Clean(destination)
	info, err := os.Stat(d)
	if err == nil {
		if !info.IsDir() && isDirPath(destination) {
			return named(destination, syscall.ENOTDIR)
		}
		if info.IsDir() {
			return writable(d)
		}
		return nil
	}
	for ; errors.Is(err, fs.ErrNotExist); info, err = os.Stat(d) {
		if _, linkErr := os.Lstat(d); linkErr == nil {
			return named(d, errDangling)
		}
		parent := filepath.Dir(d)
		if parent == d {
			break
		}
		d = parent
	}
	switch {
	case err != nil:
		return named(d, cause(err))
	case !info.IsDir():
		return named(d, syscall.ENOTDIR)
	}
	return writable(d)
}
