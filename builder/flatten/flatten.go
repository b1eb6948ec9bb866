// Package flatten applies the layers of a container image, the lowest first,
// to one tree, as container tools do: see the OCI image specification,
// layer.md. File data goes from the layer into the EROFS image in one pass.
//
// Layers are hostile: a name never leaves the tree, since the tree is in
// memory and the only root there is; numbers and lengths are bounded.
package flatten

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// Limits on what layers may hold.
const (
	maxEntries = 4 << 20
	maxPath    = 4096        // bytes of a name
	maxData    = 1 << 40     // bytes of all files, holes included
	maxXattrs  = 64 << 10    // bytes of one file's extended attributes
	maxText    = 256 << 20   // bytes of all names, links and extended attributes
	maxLinks   = 40          // symbolic links followed for one name, as the kernel does
	maxDepth   = maxPath / 2 // directories in each other: no path names deeper ones
)

// ErrInvalid is wrapped by errors about layers that cannot be applied.
var ErrInvalid = errors.New("invalid layer")

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	// asidePrefix begins what aufs kept beside an image's files: .wh..wh.aufs,
	// .wh..wh.orph, and .wh..wh.plnk, whose files hard links name.
	asidePrefix = ".wh..wh."
)

// Tree is a file system being put together.
type Tree struct {
	w     *erofs.Writer
	root  *erofs.Inode
	aside *erofs.Inode // of the layer's, what asidePrefix begins: it goes with its end
	layer int          // number of the one being applied, from 1
	// touched are the names that this layer set or went through: its whiteouts
	// leave them. The first layer has nothing to white out.
	touched map[place]struct{}
	// pruned are the directories in which this layer has left nothing of the
	// lower ones: markers can be many, and what they look through large.
	pruned map[*erofs.Inode]struct{}

	entries int // that layers have, and directories that they imply
	data    int64
	text    int
}

// place is a name in a directory.
type place struct {
	dir  *erofs.Inode
	name string
}

func (t *Tree) touch(dir *erofs.Inode, name string) {
	if t.layer > 1 {
		t.touched[place{dir, name}] = struct{}{}
	}
}

func (t *Tree) isTouched(dir *erofs.Inode, name string) bool {
	_, ok := t.touched[place{dir, name}]
	return ok || t.layer == 1
}

// New makes an empty tree whose files go to w.
func New(w *erofs.Writer) *Tree {
	root := newDir()
	root.Links = 1
	return &Tree{w: w, root: root, aside: newDir(), touched: map[place]struct{}{}, pruned: map[*erofs.Inode]struct{}{}}
}

func newDir() *erofs.Inode {
	return &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{}}
}

// Root is the root directory.
func (t *Tree) Root() *erofs.Inode { return t.root }

// Apply applies one layer, an uncompressed tar stream.
func (t *Tree) Apply(ctx context.Context, layer io.Reader) error {
	t.layer++
	clear(t.touched)
	clear(t.pruned)
	r := tar.NewReader(layer)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return t.empty(t.aside)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := t.apply(h, &cancellable{ctx, r}); err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
}

// cancellable ends a long read with its context: the zeros of a sparse entry
// come from no other reader.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func shorten(name string) string {
	if len(name) > 128 {
		return name[:64] + "…" + name[len(name)-60:]
	}
	return name
}

func (t *Tree) apply(h *tar.Header, r io.Reader) error {
	if err := t.count(len(h.Name) + len(h.Linkname)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is not a directory", ErrInvalid)
		}
		return t.describe(t.root, h)
	}
	dirName, base := path.Split(name)
	base = strings.Clone(base) // the tree would keep the whole name
	if isAside(name) {
		return t.setAside(name, h, r)
	}
	dir, err := t.makeDirs(dirName)
	if err != nil {
		return err
	}
	switch {
	case base == opaqueMarker:
		return t.prune(dir)
	case strings.HasPrefix(base, whiteoutPrefix):
		return t.whiteout(dir, strings.TrimPrefix(base, whiteoutPrefix))
	}
	return t.add(dir, base, h, r)
}

// count counts an entry and its text. What is removed later still counts: the
// limits are far from what images need.
func (t *Tree) count(text int) error {
	if t.entries++; t.entries > maxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrInvalid, maxEntries)
	}
	return t.keep(text)
}

// keep counts bytes that the tree keeps in memory.
func (t *Tree) keep(text int) error {
	if t.text += text; t.text > maxText {
		return fmt.Errorf("%w: more than %d bytes of names, links and extended attributes", ErrInvalid, maxText)
	}
	return nil
}

// isAside says whether a name is of what aufs kept beside an image's files.
func isAside(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, asidePrefix) && part != opaqueMarker {
			return true
		}
	}
	return false
}

// setAside keeps a file that hard links of the layer may name, until its end.
// All else of aufs's is left out.
func (t *Tree) setAside(name string, h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg || !strings.HasPrefix(name, asidePrefix) {
		return nil
	}
	return t.add(t.aside, name, h, r)
}

// cleanName makes a name relative to the root: "" is the root itself. A
// leading slash means the root of the image, which some builders write; ".."
// takes back what is before it, and does not lead above the root.
func cleanName(name string) (string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("%w: malformed name", ErrInvalid)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return "", fmt.Errorf("%w: the name leads out of the image", ErrInvalid)
		}
		if len(part) > 255 {
			return "", fmt.Errorf("%w: a part of the name is longer than 255 bytes", ErrInvalid)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// makeDirs finds the directory of a name, making what is missing. Symbolic
// links on the way are followed inside the image.
func (t *Tree) makeDirs(name string) (*erofs.Inode, error) {
	return t.walk(name, func(dir *erofs.Inode, base string) (*erofs.Inode, error) {
		d := newDir()
		d.Links = 1
		dir.Entries[strings.Clone(base)] = d
		return d, t.count(0)
	})
}

// walk resolves a directory. missing, when given, makes what does not exist.
func (t *Tree) walk(name string, missing func(dir *erofs.Inode, base string) (*erofs.Inode, error)) (*erofs.Inode, error) {
	stack := []*erofs.Inode{t.root}
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..": // of a symbolic link; the root's parent is the root
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		dir := stack[len(stack)-1]
		next := dir.Entries[part]
		if next == nil {
			if missing == nil {
				return nil, fmt.Errorf("%w: directory %q does not exist", ErrInvalid, part)
			}
			var err error
			if next, err = missing(dir, part); err != nil {
				return nil, err
			}
		}
		t.touch(dir, part)
		switch {
		case next.IsDir():
			if stack = append(stack, next); len(stack) > maxDepth {
				return nil, fmt.Errorf("%w: more than %d directories in each other", ErrInvalid, maxDepth)
			}
		case next.Type() == erofs.TypeSymlink:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: too many symbolic links on the way", ErrInvalid)
			}
			rest = append(strings.Split(next.Target, "/"), rest...)
			if strings.HasPrefix(next.Target, "/") {
				stack = stack[:1]
			}
			if len(rest) > maxPath {
				return nil, fmt.Errorf("%w: symbolic links on the way are too long", ErrInvalid)
			}
		default:
			return nil, fmt.Errorf("%w: %q on the way is not a directory", ErrInvalid, part)
		}
	}
	return stack[len(stack)-1], nil
}

// add puts an entry into a directory, in place of what was there.
func (t *Tree) add(dir *erofs.Inode, base string, h *tar.Header, r io.Reader) error {
	t.touch(dir, base)
	old := dir.Entries[base]
	if h.Typeflag == tar.TypeLink {
		target, err := t.linkTarget(h.Linkname)
		if err != nil {
			return err
		}
		if target == old {
			return nil
		}
		if err := t.drop(dir, base); err != nil {
			return err
		}
		target.Links++
		dir.Entries[base] = target
		return nil
	}
	if old != nil && old.IsDir() && h.Typeflag == tar.TypeDir {
		return t.describe(old, h)
	}
	if err := t.drop(dir, base); err != nil {
		return err
	}
	i, err := newInode(h)
	if err != nil {
		return err
	}
	i.Links = 1
	if err := t.describe(i, h); err != nil {
		return err
	}
	if i.Type() == erofs.TypeRegular {
		// A sparse entry says any size, in few bytes.
		if h.Size < 0 || h.Size > maxData-t.data {
			return fmt.Errorf("%w: files of more than %d bytes", ErrInvalid, int64(maxData))
		}
		t.data += h.Size
		if err := t.w.AddFile(i, r, h.Size); err != nil {
			return err
		}
	}
	dir.Entries[base] = i
	return nil
}

// linkTarget finds what a hard link names: the link itself when that is
// symbolic.
func (t *Tree) linkTarget(name string) (*erofs.Inode, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, fmt.Errorf("hard link to %q: %w", shorten(name), err)
	}
	dirName, base := path.Split(clean)
	dir := t.aside
	if isAside(clean) {
		base = clean
	} else if dir, err = t.walk(dirName, nil); err != nil {
		return nil, fmt.Errorf("hard link to %q: %w", shorten(name), err)
	}
	target := dir.Entries[base]
	if target == nil || target.IsDir() {
		return nil, fmt.Errorf("%w: hard link to %q, which is not a file of the image", ErrInvalid, shorten(name))
	}
	return target, nil
}
