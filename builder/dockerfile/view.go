package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
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
	i := v.root.Lookup(name)
	if i == nil {
		return 0, ""
	}
	return i.Mode, i.Target
}

// isDir says whether a name is a directory, or a symbolic link to one.
func (v *view) isDir(name string) (bool, error) {
	at, err := erofs.Resolve(name, v.at)
	if err != nil {
		return false, err
	}
	mode, _ := v.at(at)
	return mode&files.TypeMask == files.TypeDir, nil
}

var errNotDir = errors.New("there is something else than a directory")

// withParents are entries, with the directories of the root that lead to each: tools that
// unpack each layer by itself give one that is missing root as its owner and mode 0755, and
// join the layers afterwards.
func (v *view) withParents(entries []*entry) []*entry {
	seen := map[string]bool{".": true}
	var all []*entry
	for _, e := range entries {
		dir, at := v.root, ""
		for part := range strings.SplitSeq(path.Dir(e.name), "/") {
			if at = path.Join(at, part); dir == nil {
				break // it is an entry
			}
			dir = dir.Entries[part]
			if dir != nil && dir.IsDir() && !seen[at] {
				seen[at] = true
				all = append(all, &entry{name: at, info: files.Info{
					Mode: dir.Mode, UID: int(dir.UID), GID: int(dir.GID), ModTime: time.Unix(dir.Seconds, int64(dir.Nanos)), Xattrs: flatten.Xattrs(dir.Xattrs),
				}})
			}
		}
		seen[e.name] = true
		all = append(all, e)
	}
	return all
}

// makeDirs resolves a directory and adds what is missing of it.
func (v *view) makeDirs(name string, add func(name string) *entry) (string, error) {
	at, err := erofs.Resolve(name, v.at)
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
