package dockerfile

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/abdul-abdi/lumina/builder/reference"
)

// plan finds the stages and what each is made from, and refuses what Lumina
// cannot do in those that the target needs.
func (b *build) plan(arch string) (*stage, error) {
	f := b.o.File
	b.global = platformArgs(goruntime.GOARCH, arch, b.o.Target)
	for i, v := range b.global {
		name, _, _ := strings.Cut(v, "=")
		if value, ok := b.o.Args[name]; ok {
			b.global[i] = name + "=" + value
			b.use(name)
		}
	}
	for _, c := range f.meta {
		for _, a := range c.Args {
			value, ok := b.o.Args[a.Key]
			if ok {
				b.use(a.Key)
			} else if a.Value != nil {
				var err error
				if value, err = b.expand(f.lex(), *a.Value, b.global); err != nil {
					return nil, &Error{f.Name, lineOf(c.Location()), err}
				}
				ok = true
			}
			if ok {
				b.global = b.global.with(a.Key, value)
			}
		}
	}
	for n, def := range f.stages {
		s, err := b.newStage(n, def, arch)
		if err != nil {
			return nil, &Error{f.Name, lineOf(def.Location), err}
		}
		b.stages = append(b.stages, s)
	}
	target, err := b.target()
	if err != nil {
		return nil, err
	}
	if target.arch != arch {
		return nil, &Error{f.Name, lineOf(target.def.Location), fmt.Errorf("the stage is made for linux/%s, and linux/%s was asked for; choose with --platform", target.arch, arch)}
	}
	for _, s := range append(target.needs(), target) {
		if err := s.refuse(s.commands); err != nil {
			return nil, err
		}
	}
	return target, nil
}

func (b *build) target() (*stage, error) {
	if b.o.Target == "" {
		return b.stages[len(b.stages)-1], nil
	}
	if s := b.find(b.o.Target, len(b.stages)); s != nil {
		return s, nil
	}
	if n, err := strconv.Atoi(b.o.Target); err == nil && n >= 0 && n < len(b.stages) {
		return b.stages[n], nil
	}
	var names []string
	for n, s := range b.stages {
		name := s.def.Name
		if name == "" {
			name = strconv.Itoa(n)
		}
		names = append(names, fmt.Sprintf("%s (line %d)", name, lineOf(s.def.Location)))
	}
	return nil, &Error{File: b.o.File.Name, Err: fmt.Errorf("there is no stage %q to make; its stages are: %s", b.o.Target, strings.Join(names, ", "))}
}

// find finds a stage by its name, below a number.
func (b *build) find(name string, below int) *stage {
	for _, s := range slices.Backward(b.stages[:min(below, len(b.stages))]) {
		if s.def.Name != "" && strings.EqualFold(s.def.Name, name) {
			return s
		}
	}
	return nil
}

// from finds what COPY --from or a mount's from names; line is the instruction's.
func (b *build) from(s *stage, name string, line int) (*stage, error) {
	if strings.Contains(name, "$") {
		return nil, fmt.Errorf("from=%s: variables are not expanded here; name a stage: FROM %s AS NAME", name, name)
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 || n >= s.index {
			return nil, fmt.Errorf("from=%s: there is no such stage before this one", name)
		}
		return b.stages[n], nil
	}
	if found := b.find(name, s.index); found != nil {
		return found, nil
	}
	if b.find(name, len(b.stages)) != nil {
		return nil, fmt.Errorf("from=%s: that stage is not before this one", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.images == nil {
		b.images = map[string]*stage{}
	}
	key := name + " " + s.arch
	if b.images[key] == nil {
		b.images[key] = b.imageStage(name, s.arch, len(b.images), line)
	}
	return b.images[key], nil
}

func (b *build) newStage(n int, def instructions.Stage, arch string) (*stage, error) {
	s := &stage{b: b, index: n, def: def, arch: arch, ended: make(chan struct{})}
	if len(b.o.File.stages) > 1 {
		if s.name = def.Name; s.name == "" {
			s.name = fmt.Sprintf("stage-%d", n)
		}
	}
	for _, c := range def.Commands {
		s.commands = append(s.commands, command{Command: c})
	}
	from, err := b.expand(b.o.File.lex(), def.BaseName, b.global)
	if err != nil {
		return nil, err
	}
	if from == "" {
		return nil, fmt.Errorf("FROM %s: after its variables are replaced nothing is left", def.BaseName)
	}
	if def.Platform != "" {
		platform, err := b.expand(b.o.File.lex(), def.Platform, b.global)
		if err != nil {
			return nil, err
		}
		if s.arch, err = parsePlatform(platform); err != nil {
			return nil, fmt.Errorf("FROM --platform=%s: %w", def.Platform, err)
		}
	}
	if s.base = b.find(from, n); s.base == nil {
		if err := b.checkReference(from); err != nil {
			return nil, fmt.Errorf("FROM %s: %w", from, err)
		}
		s.image = from
	} else if def.Platform == "" {
		s.arch = s.base.arch
	}
	return s, nil
}

// checkReference refuses what names files of this host: who calls may name those, by a
// context, but not who wrote the Dockerfile.
func (b *build) checkReference(text string) error {
	if _, ok := b.o.Contexts[text]; ok {
		return nil
	}
	if r, err := reference.Parse(text); err == nil && r.Kind != reference.Registry {
		return fmt.Errorf("a Dockerfile cannot name images outside of registries and this host's store; write NAME here, and --build-context NAME=%s", text)
	}
	return nil
}

// parsePlatform reads linux/ARCH[/VARIANT], or ARCH.
func parsePlatform(s string) (arch string, err error) {
	if s == "local" {
		return goruntime.GOARCH, nil
	}
	system, arch, ok := strings.Cut(s, "/")
	if !ok {
		system, arch = "linux", s
	}
	arch, variant, _ := strings.Cut(arch, "/")
	switch arch {
	case "x86_64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	}
	if system != "linux" || arch != "amd64" && arch != "arm64" || variant != "" && variant != "v8" {
		return "", errors.New("want linux/amd64 or linux/arm64")
	}
	return arch, nil
}

// imageStage is a stage that is an image, or a named tree.
func (b *build) imageStage(reference, arch string, n, line int) *stage {
	where := []parser.Range{{Start: parser.Position{Line: line}}}
	return &stage{b: b, index: -1 - n, def: instructions.Stage{Location: where}, image: reference, arch: arch, only: true, ended: make(chan struct{})}
}

// needs are the stages, and the images, that a stage cannot be built without: its
// own not among them.
func (s *stage) needs() []*stage {
	seen := map[*stage]bool{s: true}
	var list []*stage
	var add func(*stage)
	add = func(s *stage) {
		for _, d := range s.direct() {
			if !seen[d] {
				seen[d] = true
				list = append(list, d)
				add(d)
			}
		}
	}
	add(s)
	return list
}

// direct are the stages that a stage names. What it names wrongly is found when
// it comes to that.
func (s *stage) direct() []*stage {
	var list []*stage
	if s.base != nil {
		list = append(list, s.base)
	}
	for _, c := range s.commands {
		for _, name := range fromNames(c.Command) {
			if named, ok := s.b.o.Contexts[name]; ok && named.Dir != nil {
				continue
			}
			if d, err := s.b.from(s, name, c.line()); err == nil {
				d.read = true
				list = append(list, d)
			}
		}
	}
	return list
}

func fromNames(c instructions.Command) (names []string) {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		names = append(names, c.From)
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			names = append(names, m.From)
		}
	}
	kept := names[:0]
	for _, n := range names {
		if n != "" {
			kept = append(kept, n)
		}
	}
	return kept
}
