// Package files is what COPY and ADD read: trees of files, of the host or of an
// image. A name in a tree is relative, clean and separated by slashes; "." is the
// root. Nothing outside of a tree is ever read: its root is where absolute
// symbolic links begin and where ".." ends.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// The types of a file, as in st_mode.
const (
	TypeMask    = 0o170000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

// ID tells files apart: numbers of inodes are those of one file system, and more than
// one can be mounted in a context.
type ID struct{ Device, Inode uint64 }

// Info describes a file.
type Info struct {
	Mode         uint32 // type and permissions, as st_mode
	UID, GID     int
	Size         int64
	ModTime      time.Time
	Target       string // of a symbolic link
	Major, Minor int64  // of a device
	Xattrs       map[string]string
	// ID is the same for the names of one file, and its zero value for a file of one
	// name.
	ID ID
}

// Type is the type part of Mode.
func (i Info) Type() uint32 { return i.Mode & TypeMask }

// IsDir says whether it is a directory.
func (i Info) IsDir() bool { return i.Type() == TypeDir }

// Tree is a tree of files.
type Tree interface {
	// Stat describes a file; a symbolic link itself. No part of the name but
	// the last is a symbolic link. The error wraps [fs.ErrNotExist].
	Stat(name string) (Info, error)
	// Names are those in a directory, sorted.
	Names(dir string) ([]string, error)
	Open(name string) (io.ReadCloser, error)
}

// maxLinks is how many symbolic links are followed for one name, as the kernel
// does.
const maxLinks = 40

// Resolve follows the symbolic links of a name, the last part's as well, inside
// the tree.
func Resolve(t Tree, name string) (string, Info, error) {
	at := "."
	info, err := t.Stat(at)
	if err != nil {
		return "", Info{}, err
	}
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			if info, err = t.Stat(at); err != nil {
				return "", Info{}, err
			}
			continue
		}
		if !info.IsDir() {
			return "", Info{}, fmt.Errorf("%s is not a directory: %w", at, fs.ErrNotExist)
		}
		next := path.Join(at, part)
		if info, err = t.Stat(next); err != nil {
			return "", Info{}, err
		}
		if info.Type() != TypeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", Info{}, fmt.Errorf("%s: too many symbolic links", name)
		}
		rest = append(strings.Split(info.Target, "/"), rest...)
		if strings.HasPrefix(info.Target, "/") {
			at = "."
		}
		if info, err = t.Stat(at); err != nil {
			return "", Info{}, err
		}
	}
	return at, info, nil
}

// HasPattern says whether a name has characters that Glob expands.
func HasPattern(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// Glob returns the names that match a pattern, as [path.Match] has it, sorted.
// Symbolic links are followed before the first part that is a pattern.
func Glob(t Tree, pattern string) ([]string, error) {
	pattern = strings.TrimPrefix(path.Clean("/"+pattern), "/")
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if !HasPattern(pattern) {
		return []string{clean(pattern)}, nil
	}
	parts := strings.Split(pattern, "/")
	first := 0
	for !HasPattern(parts[first]) {
		first++
	}
	base, info, err := Resolve(t, path.Join(parts[:first]...))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := []string{base}
	for _, part := range parts[first:] {
		var next []string
		for _, dir := range found {
			info, err := t.Stat(dir)
			if err != nil {
				return nil, err
			}
			if !info.IsDir() {
				continue
			}
			names, err := t.Names(dir)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if ok, err := path.Match(part, name); err != nil {
					return nil, err
				} else if ok {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found, nil
}

// clean makes a name relative to the root.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// ErrSkip of a walk's function skips what is in a directory.
var ErrSkip = fs.SkipDir

// Walk calls visit for a name and all below it, directories before what is in
// them, in the order of the names.
func Walk(t Tree, name string, visit func(name string, info Info) error) error {
	info, err := t.Stat(name)
	if err != nil {
		return err
	}
	return walk(t, name, info, visit)
}

func walk(t Tree, name string, info Info, visit func(string, Info) error) error {
	err := visit(name, info)
	if errors.Is(err, ErrSkip) && info.IsDir() {
		return nil
	}
	if err != nil || !info.IsDir() {
		return err
	}
	names, err := t.Names(name)
	if err != nil {
		return err
	}
	for _, n := range names {
		child := path.Join(name, n)
		info, err := t.Stat(child)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if err := walk(t, child, info, visit); err != nil {
			return err
		}
	}
	return nil
}
