package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/oci"
)

// stage is a stage of a build, or an image that one reads.
type stage struct {
	b        *build
	index    int
	def      instructions.Stage
	name     string // how it is called in the log; "" when there is only one
	arch     string
	base     *stage // or
	image    string // the reference of an image
	commands []command
	only     bool // there are no commands: it is an image
	read     bool // its files are asked for, by another stage or as the result
	result   bool // it is the image's root file system

	begin sync.Once
	ended chan struct{}
	err   error

	// What was made so far.
	config *v1.ConfigFile
	origin *builder.Base
	layers []layer
	ran    []string // the keys of the RUNs so far, those of the stage's base among them
	env    environ  // what RUN has, and what variables are expanded to
	args   []string // names that ARG declared
	cmdSet bool
	root   root
	vm     *machine
	step   int // number of the step that is under way, for the log
	line   int // of its instruction
}

// command is an instruction of a stage.
type command struct {
	instructions.Command
	trigger int    // the line of the FROM whose base has it as ONBUILD; 0
	text    string // what ONBUILD says
}

// named says in an error which instruction of the base it is about: the line is FROM's.
func (c command) named(err error) error {
	var at *Error
	if err == nil || c.trigger == 0 || errors.As(err, &at) {
		return err
	}
	return fmt.Errorf("ONBUILD %s: %w", c.text, err)
}

func (c command) line() int {
	if c.trigger > 0 {
		return c.trigger
	}
	return lineOf(c.Location())
}

func (c command) lastLine() int {
	where := c.Location()
	if c.trigger > 0 || len(where) == 0 {
		return c.line()
	}
	return max(where[len(where)-1].End.Line, c.line())
}

// layer is a layer of a stage.
type layer struct {
	oci.Layer
	// copied says that it only adds and replaces files.
	copied bool
}

func (s *stage) expand(word string) (string, error) { return s.b.expand(s.b.o.File.lex(), word, s.env) }

// build builds the stage once; other callers wait for it.
func (s *stage) build() error {
	s.begin.Do(func() {
		defer close(s.ended)
		s.err = s.make()
		if s.vm != nil {
			s.err = errors.Join(s.err, s.vm.finish(s.b.ctx))
			s.vm = nil
		}
	})
	select {
	case <-s.ended:
		return s.err
	case <-s.b.ctx.Done():
		return context.Cause(s.b.ctx)
	}
}

// title begins the name of a step in the log, as [STAGE 2/5].
func (s *stage) title(next bool) string {
	if next {
		s.step++
	}
	total := 1
	for _, c := range s.commands {
		if isStep(c.Command) {
			total++
		}
	}
	name := s.name
	if name != "" {
		name += " "
	}
	return fmt.Sprintf("[%s%d/%d]", name, s.step, total)
}

// isStep says whether an instruction is one that takes time.
func isStep(c instructions.Command) bool {
	switch c.(type) {
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
		return true
	}
	return false
}

func (s *stage) make() error {
	s.root.place = s.b.place
	if s.root.path == "" {
		s.root.path = filepath.Join(s.b.place.Dir, fmt.Sprintf("stage%d.erofs", s.index))
	}
	if err := s.takeBase(); err != nil {
		return s.wrap(lineOf(s.def.Location), err)
	}
	if s.result {
		s.root.prepare(s.b.ctx, slices.Clone(s.layers))
	}
	if s.only {
		return nil
	}
	// What the base wants to be done first.
	triggers := s.config.Config.OnBuild
	s.config.Config.OnBuild = nil
	if err := s.addTriggers(triggers); err != nil {
		return s.wrap(lineOf(s.def.Location), err)
	}
	for _, c := range s.commands {
		if err := context.Cause(s.b.ctx); err != nil {
			return err
		}
		if err := s.do(c); err != nil {
			return s.wrap(c.line(), c.named(err))
		}
	}
	return nil
}

func (s *stage) wrap(line int, err error) error {
	var at *Error
	if errors.As(err, &at) || context.Cause(s.b.ctx) != nil && errors.Is(err, context.Cause(s.b.ctx)) {
		return err
	}
	return &Error{s.b.o.File.Name, line, err}
}

// takeBase makes the stage what its base is.
func (s *stage) takeBase() error {
	if s.base != nil {
		if err := s.base.build(); err != nil {
			return err
		}
		s.config, s.origin = s.base.config.DeepCopy(), s.base.origin
		s.layers, s.ran = slices.Clone(s.base.layers), slices.Clone(s.base.ran)
		s.env, s.args = slices.Clone(s.base.env), slices.Clone(s.base.args) // with what ARG gave it
		s.step = 1
		return nil
	}
	if s.image == "scratch" && !s.only {
		s.config = emptyConfig()
		s.origin = builder.Scratch(s.config)
		s.env = environ(s.config.Config.Env)
		s.step = 1
		return nil
	}
	ref := s.image
	if err := s.b.checkReference(ref); err != nil {
		return s.about(err)
	}
	if named, ok := s.b.o.Contexts[ref]; ok {
		if named.Dir != nil {
			return s.about(errors.New("--build-context says that it is a directory"))
		}
		ref = named.Reference
	}
	name := s.title(true) + " FROM " + s.image
	if s.only {
		name = "FROM " + s.image
	}
	v := s.b.o.Log.begin("%s", name)
	place := *s.b.place
	place.Progress = v.fetching
	base, err := place.Base(s.b.ctx, ref, s.arch)
	if err != nil {
		v.failed(err)
		return s.about(err)
	}
	s.config, s.origin = base.Config.DeepCopy(), base
	for _, l := range base.Layers {
		s.layers = append(s.layers, layer{Layer: l})
	}
	s.env = environ(s.config.Config.Env)
	v.done()
	return nil
}

// about says in an error which image it is about, as the Dockerfile names it.
func (s *stage) about(err error) error {
	if s.only {
		return fmt.Errorf("from=%s: %w", s.image, err)
	}
	return fmt.Errorf("FROM %s: %w", s.image, err)
}

func (s *stage) addTriggers(triggers []string) error {
	var commands []command
	for _, t := range triggers {
		ast, err := parser.Parse(strings.NewReader(t))
		if err != nil {
			return fmt.Errorf("ONBUILD %s: %w", t, err)
		}
		if len(ast.AST.Children) != 1 {
			return fmt.Errorf("ONBUILD %s: it is not one instruction", t)
		}
		c, err := instructions.ParseCommand(ast.AST.Children[0])
		if err != nil {
			return fmt.Errorf("ONBUILD %s: %w", t, err)
		}
		commands = append(commands, command{c, lineOf(s.def.Location), t})
	}
	if err := s.refuse(commands); err != nil {
		return err
	}
	s.commands = append(commands, s.commands...)
	return nil
}

// do does one instruction.
func (s *stage) do(c command) error {
	s.line = c.line()
	_, isArg := c.Command.(*instructions.ArgCommand)
	if x, ok := c.Command.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		if err := x.Expand(s.expand); err != nil {
			return err
		}
	}
	if x, ok := c.Command.(instructions.SupportsSingleWordExpansionRaw); ok {
		if err := x.ExpandRaw(s.expandRaw); err != nil {
			return err
		}
	}
	if r, ok := c.Command.(*instructions.RunCommand); ok {
		for _, m := range instructions.GetMounts(r) {
			if m.Type == instructions.MountTypeSSH {
				return errSSH
			}
		}
	}
	if done, err := s.configure(c.Command); done {
		return err
	}
	trigger := ""
	if c.trigger > 0 {
		trigger = "ONBUILD "
	}
	v := s.b.o.Log.begin("%s %s%v", s.title(true), trigger, c.Command)
	var cached bool
	var err error
	switch x := c.Command.(type) {
	case *instructions.CopyCommand:
		cached, err = s.copy(x)
	case *instructions.AddCommand:
		cached, err = s.add(x)
	case *instructions.WorkdirCommand:
		cached, err = s.workdir(x)
	case *instructions.RunCommand:
		cached, err = s.run(x, v)
	default:
		err = fmt.Errorf("%s: Lumina does not know this instruction", strings.ToUpper(c.Name()))
	}
	switch {
	case err != nil:
		v.failed(err)
		var other *Error
		if !errors.As(err, &other) && context.Cause(s.b.ctx) == nil {
			s.b.o.Log.failure(v, s.b.o.File.excerpt(c.line(), c.lastLine()))
		}
	case cached:
		v.cached()
	default:
		v.done()
	}
	return err
}

// addLayer makes a layer, or takes the one that was made for the same key.
func (s *stage) addLayer(key string, copied bool, write func(io.Writer) error) (cached bool, err error) {
	l, ok := s.b.place.Cached(s.b.ctx, key)
	if !ok {
		if l, err = s.b.place.AddLayer(write); err != nil {
			return false, err
		}
		if err := s.b.place.Keep(key, l); err != nil {
			return false, err
		}
	}
	s.layers = append(s.layers, layer{l, copied})
	return ok, nil
}

func (s *stage) ociLayers() []oci.Layer {
	var list []oci.Layer
	for _, l := range s.layers {
		list = append(list, l.Layer)
	}
	return list
}

// below names all layers so far.
func (s *stage) below() []string {
	var diffs []string
	for _, l := range s.layers {
		diffs = append(diffs, l.DiffID.String())
	}
	return diffs
}

// close removes what the stage needed while the image was made.
func (s *stage) close(isTarget bool) error {
	select {
	case <-s.ended:
	default:
		begun := true
		s.begin.Do(func() { begun = false; close(s.ended) })
		if begun {
			<-s.ended
		}
	}
	err := s.root.close()
	if s.root.path != "" && !isTarget {
		if e := os.Remove(s.root.path); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
