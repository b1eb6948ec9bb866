package dockerfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
)

// expandRaw replaces variables in the text of a heredoc, where quotes mean
// nothing.
func (s *stage) expandRaw(word string) (string, error) {
	return s.b.expand(rawLex(), word, s.env)
}

// copy is COPY.
func (s *stage) copy(c *instructions.CopyCommand) (cached bool, err error) {
	cp := &copying{
		dest: s.absolute(c.DestPath), owner: c.Chown, mode: c.Chmod, link: c.Link,
		parents: c.Parents, exclude: c.ExcludePatterns,
	}
	created := "COPY "
	if c.From != "" {
		created += "--from=" + c.From + " "
	}
	created += cp.flags() + words(c.SourcesAndDest)
	tree, early := s.b.o.Context, ""
	if c.From != "" {
		src, err := s.from(c.From)
		if err != nil {
			return false, err
		}
		// What a stage has is known before its files are looked at.
		if src.stage != nil {
			if early, err = keyOf("from 1", s.arch, s.below(), src.stage.below(), cp.dest, c.SourcePaths, c.SourceContents, cp.owner, cp.mode, cp.link, cp.parents, cp.exclude); err != nil {
				return false, err
			}
			if l, ok := s.b.place.Cached(s.b.ctx, early); ok {
				s.layers = append(s.layers, layer{l, true})
				s.history(created, false)
				return true, nil
			}
		}
		if tree, err = src.tree(s.b.ctx); err != nil {
			return false, fmt.Errorf("from=%s: %w", c.From, err)
		}
	}
	for _, p := range c.SourcePaths {
		if tree == nil {
			return false, errNoContext
		}
		cp.sources = append(cp.sources, copySource{tree: tree, pattern: p})
	}
	cp.addTexts(c.SourceContents)
	cached, err = s.place(cp, created)
	if err == nil && early != "" {
		err = s.b.place.Keep(early, s.layers[len(s.layers)-1].Layer)
	}
	return cached, err
}

var errNoContext = errors.New("there is no context: name a directory after the image's name")

func (c *copying) addTexts(list []instructions.SourceContent) {
	for _, t := range list {
		c.sources = append(c.sources, copySource{tree: files.Text{t.Path: t.Data}, pattern: t.Path, literal: true})
	}
}

func (c *copying) flags() (s string) {
	if c.parents {
		s += "--parents "
	}
	if c.owner != "" {
		s += "--chown=" + c.owner + " "
	}
	if c.mode != "" {
		s += "--chmod=" + c.mode + " "
	}
	return s
}

func words(s instructions.SourcesAndDest) string {
	list := append([]string{}, s.SourcePaths...)
	for _, t := range s.SourceContents {
		list = append(list, "<<"+t.Path)
	}
	return strings.Join(append(list, s.DestPath), " ")
}

// add is ADD.
func (s *stage) add(c *instructions.AddCommand) (cached bool, err error) {
	cp := &copying{dest: s.absolute(c.DestPath), owner: c.Chown, mode: c.Chmod, link: c.Link, exclude: c.ExcludePatterns}
	if c.Checksum != "" && (len(c.SourcePaths) != 1 || !isURL(c.SourcePaths[0])) {
		return false, errors.New("ADD --checksum is for one source, a URL")
	}
	for _, p := range c.SourcePaths {
		if isURL(p) {
			f, err := s.b.fetch(p, c.Checksum)
			if err != nil {
				return false, err
			}
			defer f.remove()
			cp.sources = append(cp.sources, copySource{tree: f.File, pattern: f.Name, literal: true, unpack: c.Unpack != nil && *c.Unpack})
			continue
		}
		if s.b.o.Context == nil {
			return false, errNoContext
		}
		cp.sources = append(cp.sources, copySource{tree: s.b.o.Context, pattern: p, unpack: c.Unpack == nil || *c.Unpack})
	}
	cp.addTexts(c.SourceContents)
	return s.place(cp, "ADD "+cp.flags()+words(c.SourcesAndDest))
}

// place makes the layer of a COPY or an ADD.
func (s *stage) place(c *copying, created string) (cached bool, err error) {
	mode, err := parseMode(c.mode)
	if err != nil {
		return false, fmt.Errorf("--chmod=%s: %w", c.mode, err)
	}
	if err := c.pick(s.b.ctx); err != nil {
		return false, err
	}
	digest, err := c.digest()
	if err != nil {
		return false, err
	}
	below := s.below()
	if c.link && isNumeric(c.owner) {
		below = nil // what is below does not matter
	}
	key, err := keyOf("copy 1", s.arch, below, digest)
	if err != nil {
		return false, err
	}
	cached, err = s.addLayer(key, true, func(w io.Writer) error {
		v := view{added: map[string]*entry{}}
		if below != nil {
			if v, err = s.root.view(s.b.ctx, s.layers); err != nil {
				return err
			}
		}
		own, err := s.owner(c.owner)
		if err != nil {
			return err
		}
		if c.link {
			v.root = nil
		}
		entries, err := c.place(v, own, mode)
		if err != nil {
			return err
		}
		return writeLayer(s.b.ctx, entries, own, mode, w)
	})
	if err == nil {
		s.history(created, false)
	}
	return cached, err
}

// keyOf names what a layer depends on.
func keyOf(parts ...any) (string, error) {
	h := sha256.New()
	err := json.NewEncoder(h).Encode(parts)
	return hex.EncodeToString(h.Sum(nil)), err
}

// workdir is WORKDIR: the directory is made if it is missing.
func (s *stage) workdir(c *instructions.WorkdirCommand) (cached bool, err error) {
	dir := c.Path
	if !path.IsAbs(dir) {
		dir = path.Join("/", s.config.Config.WorkingDir, dir)
	}
	dir = path.Clean(dir)
	s.config.Config.WorkingDir = dir
	if dir == "/" {
		s.history("WORKDIR "+dir, true)
		return true, nil
	}
	key, err := keyOf("workdir 1", s.arch, s.below(), dir, s.config.Config.User)
	if err != nil {
		return false, err
	}
	cached, err = s.addLayer(key, true, func(w io.Writer) error {
		v, err := s.root.view(s.b.ctx, s.layers)
		if err != nil {
			return err
		}
		own, err := s.owner(s.config.Config.User)
		if err != nil {
			return err
		}
		p := &placer{view: v, owner: own, madeAt: time.Unix(0, 0)}
		if _, err := p.view.makeDirs(strings.TrimPrefix(dir, "/"), p.makeDir); err != nil {
			return err
		}
		return writeLayer(s.b.ctx, p.view.withParents(p.entries), nil, nil, w)
	})
	if err == nil {
		s.history("WORKDIR "+dir, false)
	}
	return cached, err
}

// origin is what a name of --from means: a stage or an image, which is complete,
// or a named directory.
type origin struct {
	stage *stage
	dir   files.Tree
}

func (o origin) tree(ctx context.Context) (files.Tree, error) {
	if o.dir != nil {
		return o.dir, nil
	}
	return o.stage.root.files(ctx, o.stage.layers)
}

// from finds what a name of --from means, and waits until it is made.
func (s *stage) from(name string) (origin, error) {
	if named, ok := s.b.o.Contexts[name]; ok && named.Dir != nil {
		return origin{dir: named.Dir}, nil
	}
	from, err := s.b.from(s, name, s.line)
	if err != nil {
		return origin{}, err
	}
	select {
	case <-from.ended:
	default:
		// A cache mount's disk that the other stage may wait for is given up.
		if s.vm != nil && len(s.vm.disks) > 0 {
			err := s.vm.finish(s.b.ctx)
			if s.vm = nil; err != nil {
				return origin{}, err
			}
		}
	}
	return origin{stage: from}, from.build()
}
