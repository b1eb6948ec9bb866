package dockerfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/moby/patternmatcher"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/erofs"
)

// copying is a COPY or an ADD, with everything expanded.
type copying struct {
	sources []copySource
	dest    string // absolute; with a slash at the end it is a directory
	// owner is USER[:GROUP]; empty: the source's own.
	owner   string
	mode    string
	link    bool
	parents bool
	exclude []string
	picks   []pick
}

// copySource is one source of a COPY or an ADD.
type copySource struct {
	tree    files.Tree
	pattern string
	// unpack says that a tar archive is unpacked, compressed or not.
	unpack bool
	// literal: the pattern is a name.
	literal bool
}

// pick is something that a source matched.
type pick struct {
	base    string // its name
	isDir   bool
	archive bool
	files   []picked
}

// picked is a file of a pick, itself or below it.
type picked struct {
	rel    string // below the pick; "." for itself
	info   files.Info
	tree   files.Tree
	source string
	sum    string // sha256 of a regular file
}

// pick finds the sources' files and reads them, for their digests.
func (c *copying) pick(ctx context.Context) error {
	var exclude *patternmatcher.PatternMatcher
	if len(c.exclude) > 0 {
		var err error
		if exclude, err = patternmatcher.New(c.exclude); err != nil {
			return fmt.Errorf("--exclude: %w", err)
		}
	}
	for _, s := range c.sources {
		var err error
		if c.parents {
			err = c.pickParents(ctx, s, exclude)
		} else {
			err = c.pickSource(ctx, s, exclude)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) pickSource(ctx context.Context, s copySource, exclude *patternmatcher.PatternMatcher) error {
	names := []string{path.Clean(strings.TrimPrefix(path.Clean("/"+s.pattern), "/"))}
	if !s.literal {
		var err error
		// One that matches nothing is no error: "COPY package.json yarn.lock* ./".
		if names, err = files.Glob(s.tree, s.pattern); err != nil {
			if strings.HasPrefix(s.pattern, "[") {
				err = fmt.Errorf(`%w; a list is JSON, with double quotes and commas: ["SRC", "DST"]`, err)
			}
			return err
		}
	}
	for _, name := range names {
		at, info, err := files.Resolve(s.tree, name)
		if err != nil {
			return notThere(s.pattern, err)
		}
		p := pick{base: path.Base(name), isDir: info.IsDir()}
		if s.unpack && info.Type() == files.TypeRegular {
			if p.archive, err = isArchive(s.tree, at); err != nil {
				return err
			}
		}
		err = files.Walk(s.tree, at, func(n string, info files.Info) error {
			rel := "."
			if n != at {
				rel = strings.TrimPrefix(strings.TrimPrefix(n, at), "/")
			}
			match := rel
			if rel == "." && !p.isDir {
				match = p.base
			}
			if exclude != nil && match != "." {
				if out, err := exclude.MatchesOrParentMatches(match); err != nil {
					return err
				} else if out && info.IsDir() && !exclude.Exclusions() {
					return files.ErrSkip
				} else if out {
					return nil
				}
			}
			return p.add(ctx, s.tree, rel, n, info)
		})
		if err != nil {
			return err
		}
		if len(p.files) > 0 {
			c.picks = append(c.picks, p)
		}
	}
	return nil
}

func notThere(pattern string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		var at *fs.PathError
		if errors.As(err, &at) && at.Err.Error() == "the ignore file excludes it" {
			return fmt.Errorf("%q not found: %w", pattern, at.Err)
		}
		return fmt.Errorf("%q not found", pattern)
	}
	return err
}

// pickParents picks what a pattern names with the directories that lead to it,
// from "/./" on if that is in the pattern.
func (c *copying) pickParents(ctx context.Context, s copySource, exclude *patternmatcher.PatternMatcher) error {
	base, pattern, pivot := strings.Cut(s.pattern, "/./")
	if !pivot {
		base, pattern = "", s.pattern
	}
	pattern = strings.TrimPrefix(path.Clean("/"+pattern), "/")
	if !files.HasPattern(base) {
		return c.pickBelow(ctx, s, base, pattern, exclude)
	}
	bases, err := files.Glob(s.tree, base)
	for _, base := range bases {
		_, info, statErr := files.Resolve(s.tree, base)
		if err == nil && statErr == nil && info.IsDir() {
			err = c.pickBelow(ctx, s, base, pattern, exclude)
		}
	}
	return err
}

// pickBelow picks what a pattern names below a directory, with the directories that
// lead to it.
func (c *copying) pickBelow(ctx context.Context, s copySource, base, pattern string, exclude *patternmatcher.PatternMatcher) error {
	root, info, err := files.Resolve(s.tree, base)
	if err != nil {
		return notThere(s.pattern, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is not a directory", base)
	}
	if !files.HasPattern(s.pattern) { // what a pattern does not match is no error
		if _, _, err := files.Resolve(s.tree, path.Join(root, pattern)); err != nil {
			return notThere(s.pattern, err)
		}
	}
	if pattern == "" {
		pattern = "**"
	}
	include, err := patternmatcher.New([]string{pattern})
	if err != nil {
		return fmt.Errorf("%q: %w", s.pattern, err)
	}
	p := pick{isDir: true}
	var parents []picked // that nothing was found in yet
	err = files.Walk(s.tree, root, func(n string, info files.Info) error {
		if n == root {
			return nil
		}
		rel := n
		if root != "." {
			rel = strings.TrimPrefix(n, root+"/")
		}
		for len(parents) > 0 && !strings.HasPrefix(rel, parents[len(parents)-1].rel+"/") {
			parents = parents[:len(parents)-1]
		}
		in, err := include.MatchesOrParentMatches(rel)
		if err == nil && in && exclude != nil {
			out := false
			out, err = exclude.MatchesOrParentMatches(rel)
			in = !out
		}
		switch {
		case err != nil:
			return err
		case !in && info.IsDir():
			parents = append(parents, picked{rel: rel, info: info, tree: s.tree, source: n})
			return nil
		case !in:
			return nil
		}
		p.files = append(p.files, parents...)
		parents = nil
		return p.add(ctx, s.tree, rel, n, info)
	})
	if err != nil {
		return err
	}
	c.picks = append(c.picks, p) // also of nothing: the destination is made
	return nil
}

func (p *pick) add(ctx context.Context, tree files.Tree, rel, source string, info files.Info) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f := picked{rel: rel, info: info, tree: tree, source: source}
	if info.Type() == files.TypeRegular {
		h := sha256.New()
		if err := readFile(ctx, &f, h); err != nil {
			return err
		}
		f.sum = hex.EncodeToString(h.Sum(nil))
	}
	p.files = append(p.files, f)
	return nil
}

// readFile copies a picked file, which has the size that it had.
func readFile(ctx context.Context, f *picked, w io.Writer) error {
	r, err := f.tree.Open(f.source)
	if err != nil {
		return err
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	n, err := io.Copy(w, io.LimitReader(r, f.info.Size+1))
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil && n != f.info.Size {
		err = errChanged
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.source, err)
	}
	return nil
}

var errChanged = errors.New("it changes while it is read")

// digest names what is copied and how, but for the destination as it is.
func (c *copying) digest() (string, error) {
	h := sha256.New()
	e := json.NewEncoder(h)
	err := e.Encode([]any{"copy 1", c.dest, c.owner, c.mode, c.link, c.parents})
	for _, p := range c.picks {
		err = errors.Join(err, e.Encode([]any{p.base, p.isDir, p.archive}))
		links := map[files.ID]int{}
		for n, f := range p.files {
			same := -1
			if id := f.info.ID; id != (files.ID{}) {
				if first, ok := links[id]; ok {
					same = first
				} else {
					links[id] = n
				}
			}
			i := f.info
			err = errors.Join(err, e.Encode([]any{f.rel, i.Mode, i.UID, i.GID, i.Size, i.Target, i.Major, i.Minor, i.Xattrs, f.sum, same}))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// entry is a file that a layer has.
type entry struct {
	name    string // in the image, relative
	info    files.Info
	from    *picked // a regular file's content
	link    string  // the entry that is the same file
	archive *picked // what is unpacked below name
}

// owner is who owns what is copied.
type owner struct{ uid, gid int }

// placer puts picks into an image.
type placer struct {
	view    view
	owner   *owner // nil: as they are
	mode    chmod
	entries []*entry
	links   map[linkKey]string
	madeAt  time.Time // of directories that are made
}

// linkKey tells files of several names apart. Each source is copied by itself.
type linkKey struct {
	pick *pick
	id   files.ID
}

// place says which entries the layer of a COPY has.
func (c *copying) place(v view, own *owner, mode chmod) ([]*entry, error) {
	p := &placer{view: v, owner: own, mode: mode, links: map[linkKey]string{}, madeAt: time.Unix(0, 0)}
	for _, k := range c.picks {
		if len(k.files) > 0 {
			p.madeAt = k.files[0].info.ModTime
			break
		}
	}
	dest := strings.TrimPrefix(path.Clean(c.dest), "/")
	intoDir := strings.HasSuffix(c.dest, "/") || c.parents
	if !intoDir {
		var err error
		if intoDir, err = p.view.isDir(dest); err != nil {
			return nil, err
		}
	}
	if len(c.picks) > 1 && !intoDir {
		return nil, fmt.Errorf("several sources go into a directory: end the destination %q with a slash", c.dest)
	}
	for i := range c.picks {
		if err := p.pick(&c.picks[i], dest, intoDir); err != nil {
			return nil, err
		}
	}
	return p.view.withParents(p.entries), nil
}

func (p *placer) pick(k *pick, dest string, intoDir bool) error {
	if k.archive || k.isDir {
		at, err := p.view.makeDirs(dest, p.makeDir)
		if err != nil {
			return err
		}
		if k.archive {
			p.entries = append(p.entries, &entry{name: at, archive: &k.files[0]})
			return nil
		}
		for i := range k.files {
			if f := &k.files[i]; f.rel != "." {
				if err := p.put(path.Join(at, f.rel), k, f); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if intoDir {
		dest = path.Join(dest, k.base)
	}
	dir, err := p.view.makeDirs(path.Dir(dest), p.makeDir)
	if err != nil {
		return err
	}
	return p.put(path.Join(dir, path.Base(dest)), k, &k.files[0])
}

// makeDir adds a directory that is on the way.
func (p *placer) makeDir(name string) *entry {
	e := &entry{name: name, info: files.Info{Mode: files.TypeDir | 0o755, ModTime: p.madeAt}}
	if p.owner != nil {
		e.info.UID, e.info.GID = p.owner.uid, p.owner.gid
	}
	p.entries = append(p.entries, e)
	return e
}

func (p *placer) put(name string, k *pick, f *picked) error {
	// Directories that an exclusion took away are made.
	if dir := path.Dir(name); dir != "." {
		if mode, _ := p.view.at(dir); mode == 0 {
			if _, err := p.view.makeDirs(dir, p.makeDir); err != nil {
				return err
			}
		}
	}
	there, _ := p.view.at(name)
	switch isDir := there&files.TypeMask == files.TypeDir; {
	case there == 0 || isDir == f.info.IsDir():
	case isDir:
		return fmt.Errorf("/%s is a directory in the image, and a file in the source", name)
	default:
		return fmt.Errorf("/%s is a directory in the source, but not in the image", name)
	}
	e := &entry{name: name, info: f.info}
	if p.owner != nil {
		e.info.UID, e.info.GID = p.owner.uid, p.owner.gid
	}
	if f.info.Type() != files.TypeSymlink {
		e.info.Mode = p.mode(f.info.Mode)
	}
	if f.info.Type() == files.TypeRegular {
		e.from = f
		if id := f.info.ID; id != (files.ID{}) {
			key := linkKey{k, id}
			if first, ok := p.links[key]; ok {
				e.link = first
			} else {
				p.links[key] = name
			}
		}
	}
	p.view.added[name] = e
	p.entries = append(p.entries, e)
	return nil
}

// Copy writes the layer of a COPY from tree upon the root below. mode is as for chmod(1),
// empty for what the files have.
func Copy(ctx context.Context, tree files.Tree, from string, below *erofs.Inode, to, mode string, uid, gid int, w io.Writer) error {
	change, err := parseMode(mode)
	if err != nil {
		return err
	}
	c := &copying{dest: to, sources: []copySource{{tree: tree, pattern: from, literal: true}}}
	if err := c.pick(ctx); err != nil {
		return err
	}
	entries, err := c.place(view{root: below, added: map[string]*entry{}}, &owner{uid, gid}, change)
	if err != nil {
		return err
	}
	return writeLayer(ctx, entries, nil, nil, w)
}

// CheckMode says whether Copy takes a mode.
func CheckMode(mode string) error {
	_, err := parseMode(mode)
	return err
}
