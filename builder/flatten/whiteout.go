package flatten

import (
	"fmt"
	"maps"
	"slices"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// whiteout removes what lower layers have under a name.
func (t *Tree) whiteout(dir *erofs.Inode, base string) error {
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("%w: malformed whiteout", ErrInvalid)
	}
	i := dir.Entries[base]
	switch {
	case i == nil:
		return nil
	case !t.isTouched(dir, base):
		return t.drop(dir, base)
	case i.IsDir():
		return t.prune(i)
	}
	return nil // it is this layer's own
}

// prune removes what lower layers have in a directory.
func (t *Tree) prune(dir *erofs.Inode) error {
	if _, done := t.pruned[dir]; done {
		return nil
	}
	t.pruned[dir] = struct{}{}
	for _, name := range slices.Sorted(maps.Keys(dir.Entries)) {
		var err error
		switch i := dir.Entries[name]; {
		case !t.isTouched(dir, name):
			err = t.drop(dir, name)
		case i.IsDir():
			err = t.prune(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// empty drops all that is in a directory, in order: the same layers give the same
// image.
func (t *Tree) empty(dir *erofs.Inode) error {
	for _, name := range slices.Sorted(maps.Keys(dir.Entries)) {
		if err := t.drop(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a name and, with its last name, what it named.
func (t *Tree) drop(dir *erofs.Inode, base string) error {
	i := dir.Entries[base]
	if i == nil {
		return nil
	}
	delete(dir.Entries, base)
	if i.IsDir() {
		return t.empty(i)
	}
	if i.Links--; i.Links > 0 {
		return nil
	}
	if i.Type() == erofs.TypeRegular {
		return t.w.Discard(i)
	}
	return nil
}
