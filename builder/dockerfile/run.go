package dockerfile

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// running is a RUN, with everything expanded.
type running struct {
	args    []string
	env     []string // of the command alone
	mounts  []Mount
	disks   []string // of cache mounts, the Disk of whose mounts is an index
	diskOf  map[int]int
	trees   []stagedTree
	keys    []any // what the mounts bring
	network bool
}

// stagedTree is what a mount shows.
type stagedTree struct {
	name   string
	memory bool
	write  func(io.Writer) error
}

// run is RUN.
func (s *stage) run(c *instructions.RunCommand, v *vertex) (cached bool, err error) {
	r := &running{network: instructions.GetNetwork(c) != instructions.NetworkNone, diskOf: map[int]int{}}
	if err := s.runArgs(c, r); err != nil {
		return false, err
	}
	for n, m := range instructions.GetMounts(c) {
		if err := s.mount(m, n, r); err != nil {
			return false, fmt.Errorf("%s: %w", mountTitle(m), err)
		}
	}
	config := s.config.Config
	// Another agent, or another kernel, may give another result. So may what ran in the VM
	// before: it could say that its layer is one that other Dockerfiles have, too.
	vm := s.b.place.Image.Files
	key, err := keyOf("run 3", vm[image.Kernel].SHA256, vm[image.Initramfs].SHA256, s.arch, s.below(), s.ran, r.args, s.env, config.User, config.WorkingDir, r.keys, r.network)
	if err != nil {
		return false, err
	}
	command := Command{Args: r.args, Dir: config.WorkingDir, User: config.User, Output: v}
	if command.Dir == "" {
		command.Dir = "/"
	}
	env := s.env
	for _, name := range proxyArgs {
		if value, ok := s.b.o.Args[name]; ok {
			if _, set := env.get(name); !set {
				env = env.with(name, value)
			}
		}
	}
	command.Env = append(env[:len(env):len(env)], r.env...)
	cached, err = s.addLayer(key, false, func(w io.Writer) error { return s.runInVM(r, command, w) })
	if err != nil {
		return false, err
	}
	s.ran = append(s.ran, key)
	if s.vm != nil && !cached {
		s.vm.has = len(s.layers)
	}
	s.history("RUN "+s.createdBy(r.args), false)
	return cached, nil
}

// createdBy is how the history calls a command: with the arguments that it was
// given.
func (s *stage) createdBy(args []string) string {
	var given []string
	for _, name := range s.args {
		value, _ := s.env.get(name)
		if arg := name + "=" + value; !slices.Contains(given, arg) {
			given = append(given, arg)
		}
	}
	if len(given) > 0 {
		given = append([]string{fmt.Sprintf("|%d", len(given))}, given...)
	}
	return strings.Join(append(given, args...), " ")
}

// runArgs finds the program of a RUN and its arguments. Heredocs become part of
// the shell's command or, one that begins with #!, a program.
func (s *stage) runArgs(c *instructions.RunCommand, r *running) error {
	line := c.ShellDependantCmdLine
	if len(line.CmdLine) == 0 {
		return errors.New("RUN: no command given")
	}
	if len(c.Files) > 0 {
		if len(line.CmdLine) != 1 || !line.PrependShell {
			return errors.New("RUN: a heredoc is for the shell form")
		}
		if doc := parser.MustParseHeredoc(line.CmdLine[0]); doc != nil {
			text := c.Files[0].Data
			if c.Files[0].Chomp {
				text = parser.ChompHeredocContent(text)
			}
			if strings.HasPrefix(text, "#!") {
				const dir = "/dev/pipes"
				name := c.Files[0].Name
				r.args = []string{path.Join(dir, name)}
				r.keys = append(r.keys, "heredoc", text)
				r.add("heredoc", false, Mount{Path: path.Join(dir, name), ReadOnly: true}, func(w io.Writer) error {
					return writeOne(w, []byte(text), 0o755, 0, 0)
				})
				return nil
			}
			line.CmdLine = []string{text}
		} else {
			text := line.CmdLine[0]
			for _, f := range c.Files {
				text += "\n" + f.Data + f.Name
			}
			line.CmdLine = []string{text}
		}
	}
	r.args = s.commandLine(line)
	return nil
}

// add makes a mount of a staged tree.
func (r *running) add(name string, memory bool, m Mount, write func(io.Writer) error) {
	m.Staged = name
	r.mounts = append(r.mounts, m)
	r.trees = append(r.trees, stagedTree{name, memory, write})
}

// writeOne writes an archive of one file, which a mount shows.
func writeOne(w io.Writer, content []byte, mode int64, uid, gid int) error {
	t := tar.NewWriter(w)
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "data", Mode: mode, Uid: uid, Gid: gid, Size: int64(len(content))})
	if err == nil {
		_, err = t.Write(content)
	}
	return errors.Join(err, t.Close())
}

// machine is the VM of a stage.
type machine struct {
	VM
	dir     string
	network bool
	disks   []string // ids of its cache mounts
	has     int      // layers of the stage that are in it
	steps   int
	staged  map[string]bool
	unlock  func()
}

func (m *machine) finish(ctx context.Context) error {
	err := m.Finish(ctx)
	m.unlock()
	return errors.Join(err, os.RemoveAll(m.dir))
}

// Limits of one VM of a stage.
const (
	maxSteps = 60 // the layers of an overlay have to fit into one page
	// What is copied between two commands goes into the VM that runs, unless that
	// would take longer than another start.
	maxUnpack = 32 << 20 // bytes
)

// runInVM runs a command and writes what it changed as a layer.
func (s *stage) runInVM(r *running, c Command, layer io.Writer) error {
	ctx := s.b.ctx
	next, err := s.prepare(ctx, r)
	if err != nil {
		return err
	}
	// Disks are waited for before that, and never by who keeps others from running.
	select {
	case s.b.vms <- struct{}{}:
		defer func() { <-s.b.vms }()
	case <-ctx.Done():
		next.release()
		return context.Cause(ctx)
	}
	if next != nil {
		if err := s.start(ctx, next); err != nil {
			return err
		}
	}
	if err := s.unpack(ctx, s.vm); err != nil {
		return err
	}
	vm := s.vm
	for _, t := range r.trees {
		if vm.staged[t.name] {
			continue
		}
		if err := vm.stage(ctx, t); err != nil {
			return fmt.Errorf("sending what a mount shows: %w", err)
		}
		vm.staged[t.name] = true
	}
	mounts := slices.Clone(r.mounts)
	for n, disk := range r.diskOf {
		mounts[n].Disk = slices.Index(vm.disks, r.disks[disk]) + 1
	}
	if err := vm.NextLayer(ctx, c.Dir, mounts); err != nil {
		return err
	}
	vm.steps++
	code, err := vm.Run(ctx, c)
	if err == nil && code != 0 {
		err = fmt.Errorf("process %q did not complete successfully: exit code: %d", strings.Join(c.Args, " "), code)
		if s.b.o.Debug != nil {
			release := s.b.o.Log.hold()
			err = errors.Join(err, s.b.o.Debug(ctx, vm.VM, c))
			release()
		}
	}
	if err != nil {
		return err
	}
	return vm.Changes(ctx, layer)
}

// nextVM is a VM that a stage is about to start.
type nextVM struct {
	start  Start
	ids    []string // of the disks
	unlock func()
}

func (n *nextVM) release() {
	if n != nil {
		for _, f := range n.start.Disks {
			f.Close()
		}
		n.unlock()
	}
}

// prepare ends a VM that a command cannot run in, and has the disks of the next
// one; nil: the VM stays.
func (s *stage) prepare(ctx context.Context, r *running) (*nextVM, error) {
	disks := slices.Clone(r.disks)
	if vm := s.vm; vm != nil {
		missing := slices.DeleteFunc(slices.Clone(disks), func(d string) bool { return slices.Contains(vm.disks, d) })
		if vm.network == r.network && len(missing) == 0 && vm.steps < maxSteps && s.canUnpack(vm.has) {
			return nil, nil
		}
		disks = append(disks, vm.disks...)
		s.vm = nil
		if err := vm.finish(ctx); err != nil {
			return nil, err
		}
	}
	slices.Sort(disks) // the same order everywhere, so that two builds that need several do not deadlock
	disks = slices.Compact(disks)
	n := &nextVM{start: Start{NoNetwork: !r.network}, ids: disks, unlock: s.b.lockDisks(disks)}
	for _, id := range disks {
		f, err := s.b.o.CacheDisk(ctx, id)
		if err != nil {
			n.release()
			return nil, fmt.Errorf("the cache mount %s: %w", id, err)
		}
		n.start.Disks = append(n.start.Disks, f)
	}
	return n, nil
}

// start starts a VM with all layers of the stage.
func (s *stage) start(ctx context.Context, n *nextVM) error {
	dir, err := s.b.place.Assemble(ctx, fmt.Sprintf("stage%d", s.index), s.arch, s.ociLayers())
	if err != nil {
		n.release()
		return errors.Join(err, os.RemoveAll(dir))
	}
	n.start.Dir = dir
	vm, err := s.b.o.Start(ctx, n.start)
	if err != nil {
		n.unlock()
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.vm = &machine{VM: vm, dir: dir, network: !n.start.NoNetwork, disks: n.ids, has: len(s.layers), staged: map[string]bool{}, unlock: n.unlock}
	if s.read {
		// While the command runs, what needs no VM goes on.
		layers := slices.Clone(s.layers)
		go func() { _ = s.root.advance(ctx, layers) }()
	}
	return nil
}

// canUnpack says whether the layers from one on can be brought into a VM that
// runs.
func (s *stage) canUnpack(from int) bool {
	size := int64(0)
	for _, l := range s.layers[from:] {
		if size += l.Size; !l.copied || size > maxUnpack {
			return false
		}
	}
	return true
}

func (s *stage) unpack(ctx context.Context, vm *machine) error {
	for ; vm.has < len(s.layers); vm.has++ {
		r, err := builder.OpenLayer(ctx, s.layers[vm.has].Layer)
		if err != nil {
			return err
		}
		err = vm.Unpack(ctx, r)
		r.Close()
		if err != nil {
			return fmt.Errorf("bringing what was copied into the VM: %w", err)
		}
	}
	return nil
}

// stage sends a tree that is written meanwhile.
func (m *machine) stage(ctx context.Context, t stagedTree) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(t.write(w))
	}()
	err := m.Stage(ctx, t.name, t.memory, r)
	r.CloseWithError(errors.New("the VM reads no more"))
	<-done
	return err
}
