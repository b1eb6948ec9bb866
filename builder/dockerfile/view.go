package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/erofs"
)

// view is a root file system that files are put into, with those that were.
type view struct {
	root  *erofs.Inode // nil: an empty one
	added map[string]*entry
}

// at describes what a clean name without symbolic links on the way has; mode is
// 0 when there is nothing.
func (v *view) at(name string) (mode uint32, target string) {
	if name == "." {
		return files.TypeDir, ""
	}
	if e := v.added[name]; e != nil {
		return e.info.Mode, e.info.Target
	}
	if v.root == nil {
		return 0, ""
	}
	i := v.root
	for part := range strings.SplitSeq(name, "/") {
		if i = i.Entries[part]; i == nil {
			return 0, ""
		}
	}
	return i.Mode, i.Target
}

const maxLinks = 40

// resolve follows the symbolic links of a name as far as it exists; the rest is
// as it is.
func (v *view) resolve(name string) (string, error) {
	at := "."
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		mode, target := v.at(next)
		if mode&files.TypeMask != files.TypeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("/%s: too many symbolic links", name)
		}
		rest = append(strings.Split(target, "/"), rest...)
		if strings.HasPrefix(target, "/") {
			at = "."
		}
	}
	return at, nil
}

// isDir says whether a name is a directory, or a symbolic link to one.
func (v *view) isDir(name string) (bool, error) {
	at, err := v.resolve(name)
	if err != nil {
		return false, err
	}
	mode, _ := v.at(at)
	return mode&files.TypeMask == files.TypeDir, nil
}

var errNotDir = errors.New("there is something else than a directory")

// makeDirs resolves a directory and adds what is missing of it.
func (v *view) makeDirs(name string, add func(name string) *entry) (string, error) {
	at, err := v.resolve(name)
	if err != nil || at == "." {
		return at, err
	}
	parts := strings.Split(at, "/")
	for n := range parts {
		part := strings.Join(parts[:n+1], "/")
		switch mode, _ := v.at(part); mode & files.TypeMask {
		case files.TypeDir:
		case 0:
			v.added[part] = add(part)
		default:
			return "", fmt.Errorf("/%s: %w", part, errNotDir)
		}
	}
	return at, nil
}
