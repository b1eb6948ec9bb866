package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Options says what to build. Zero values mean the defaults.
type Options struct {
	File *File
	// Context is what COPY and ADD read; nil: there is none.
	Context files.Tree
	// Target is the name or the number of the stage to build; the last one.
	Target string
	// Args are the values of build arguments.
	Args map[string]string
	// Contexts are more trees, by name: a directory, or the reference of an image.
	Contexts map[string]Context
	Secrets  map[string][]byte
	// Network is what RUN reaches: the default of the builder, or none.
	Start func(context.Context, Start) (VM, error)
	// CacheDisk opens the disk of a cache mount, for one VM alone; it may wait
	// until others have closed it.
	CacheDisk func(ctx context.Context, id string) (*volume.Disk, error)
	// Dial connects to the servers that ADD fetches from, and that they redirect to;
	// nil: ADD fetches nothing.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Debug is called when a command has failed, with its VM as it is; nil: it is
	// not.
	Debug func(context.Context, VM, Command) error
	Log   *Log
}

// Context is a named tree that is not a stage.
type Context struct {
	Dir       files.Tree // or
	Reference string
}

// Start is a VM to start.
type Start struct {
	Dir       string // an image
	NoNetwork bool
	Disks     []*volume.Disk // the VM's from then on
}

// VM runs a stage's commands.
type VM interface {
	// Unpack writes a tar archive into the root.
	Unpack(ctx context.Context, archive io.Reader) error
	// Stage writes one into a tree that commands do not see until a layer mounts it.
	// With memory, it is kept off the disk.
	Stage(ctx context.Context, name string, memory bool, archive io.Reader) error
	// NextLayer ends all processes and begins a layer. dir is made if it is missing.
	NextLayer(ctx context.Context, dir string, mounts []Mount) error
	// Run runs a command and returns its exit code.
	Run(ctx context.Context, c Command) (int, error)
	Changes(ctx context.Context, w io.Writer) error
	// Finish ends the VM; its disks keep what was written.
	Finish(ctx context.Context) error
}

// Mount is something that a layer's commands see and that is no part of the layer: a
// staged tree, a disk, or a file system in memory.
type Mount struct {
	Path     string
	ReadOnly bool
	Staged   string // the file or directory "data" of this tree, see VM
	Disk     int    // which of Start's Disks, from 1; 0: none
	Size     int64  // of a file system in memory, in bytes
	// Of a disk's directory, when it is made.
	Mode     uint32
	UID, GID uint32
}

// Command is what RUN runs.
type Command struct {
	Args   []string
	Env    []string
	Dir    string
	User   string
	Output io.Writer
}

// build is one build.
type build struct {
	o      Options
	ctx    context.Context
	place  *builder.Place
	global environ // ARG before the first FROM, and predefined ones
	stages []*stage
	images map[string]*stage // of COPY --from=IMAGE, by reference

	expanded atomic.Int64 // bytes that words with variables have become

	mu   sync.Mutex
	used map[string]bool // build arguments that were asked for
	vms  chan struct{}   // one for each command that may run at once

	disks disks
	// silence is how long a server may send nothing in the middle of a file.
	silence time.Duration
}

// Maker returns what makes an image's root from a Dockerfile.
func Maker(o Options) builder.Maker {
	return func(ctx context.Context, p *builder.Place) error {
		b, err := newBuild(ctx, o, p)
		if err != nil {
			return err
		}
		return b.run()
	}
}

// Check finds what is wrong with a build before it begins: a target that is not
// there, what Lumina cannot do.
func Check(o Options, arch string) error {
	b := &build{o: o, used: map[string]bool{}}
	_, err := b.plan(arch)
	return err
}

func newBuild(ctx context.Context, o Options, p *builder.Place) (*build, error) {
	return &build{o: o, ctx: ctx, place: p, used: map[string]bool{}, images: map[string]*stage{}, silence: remoteTimeout,
		vms: make(chan struct{}, max(2, goruntime.NumCPU()))}, nil
}

func (b *build) use(arg string) {
	b.mu.Lock()
	b.used[arg] = true
	b.mu.Unlock()
}

// run builds the target, and the stages that it needs beside each other.
func (b *build) run() (err error) {
	defer b.o.Log.Close()
	target, err := b.plan(b.place.Image.Architecture)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	defer cancel(nil)
	b.ctx = ctx
	final := !b.place.LayersOnly
	if final {
		target.read, target.result = true, true
		target.root.path = filepath.Join(b.place.Dir, image.Rootfs)
	}
	defer func() {
		cancel(errors.New("the build has ended"))
		for _, s := range b.all() {
			err = errors.Join(err, s.close(final && s == target))
		}
	}()
	var wait sync.WaitGroup
	for _, s := range append(target.needs(), target) {
		wait.Go(func() {
			if err := s.build(); err != nil {
				cancel(err) // the others end, too
			}
		})
	}
	wait.Wait()
	// What went wrong first explains what ended with it.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := b.place.Describe(target.origin, target.config, target.ociLayers()); err != nil {
		return err
	}
	if final {
		v := b.o.Log.begin("writing the root file system")
		if err := target.root.finish(ctx, target.layers, b.place.Begun); err != nil {
			v.failed(err)
			return err
		}
		v.done()
	}
	b.warnUnused()
	return nil
}

// all are the stages that began.
func (b *build) all() []*stage {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(b.stages)
	for _, s := range b.images {
		all = append(all, s)
	}
	return all
}

func (b *build) warnUnused() {
	var unused []string
	for name := range b.o.Args {
		if !b.used[name] && !slices.Contains(proxyArgs, name) {
			unused = append(unused, name)
		}
	}
	if len(unused) > 0 {
		slices.Sort(unused)
		b.o.Log.note("[warning] no ARG of the Dockerfile takes --build-arg %s", strings.Join(unused, ", "))
	}
}

// refuse names the first thing in some instructions that Lumina cannot do.
func (s *stage) refuse(commands []command) error {
	for _, c := range commands {
		err := s.b.o.File.checkSyntax(c.Command)
		if err == nil {
			err = refusal(c.Command)
		}
		if err == nil && s.b.o.Context == nil && readsContext(c.Command) {
			err = errNoContext
		}
		if r, ok := c.Command.(*instructions.RunCommand); ok && err == nil {
			err = s.missesSecrets(r)
		}
		if err != nil {
			return &Error{s.b.o.File.Name, c.line(), c.named(err)}
		}
	}
	return nil
}

// readsContext says whether an instruction surely copies files of the context. What is
// in a variable may be a URL.
func readsContext(c instructions.Command) bool {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		return c.From == "" && len(c.SourcePaths) > 0
	case *instructions.AddCommand:
		return slices.ContainsFunc(c.SourcePaths, func(source string) bool { return !isURL(source) && !strings.Contains(source, "$") })
	}
	return false
}

var errSSH = errors.New("RUN --mount=type=ssh: there is no SSH agent in the VM; use a secret")

// expanded are the characters of a word that is another one when it comes to it.
const expanded = "$\"'\\`"

// refusal says why Lumina cannot do an instruction. The mounts of a RUN may have
// variables that have no value yet.
func refusal(c instructions.Command) error {
	switch c := c.(type) {
	case *instructions.RunCommand:
		variables := false
		err := c.Expand(func(word string) (string, error) {
			variables = variables || strings.Contains(word, "$")
			return word, nil
		})
		if err != nil && variables {
			return nil // it is asked again when it comes to it
		}
		if err != nil {
			return err
		}
		for _, m := range instructions.GetMounts(c) {
			if m.Type == instructions.MountTypeSSH {
				return errSSH
			}
			if err := checkMount(m); err != nil {
				return fmt.Errorf("%s: %w", mountTitle(m), err)
			}
		}
		if n := instructions.GetNetwork(c); n == instructions.NetworkHost {
			return errors.New("RUN --network=host: a VM does not have the host's network; leave it out")
		}
		if m := instructions.GetSecurity(c); m != instructions.SecuritySandbox {
			return fmt.Errorf("RUN --security=%s: a VM's root has all rights in it already; leave it out", m)
		}
		if len(instructions.GetDevices(c)) > 0 {
			return errors.New("RUN --device: a VM has none of the host's devices")
		}
	case *instructions.ExposeCommand:
		for _, word := range c.Ports {
			if _, err := parsePorts(word); err != nil && !strings.ContainsAny(word, expanded) {
				return err
			}
		}
	case *instructions.StopSignalCommand:
		if !strings.ContainsAny(c.Signal, expanded) {
			return checkSignal(c.Signal)
		}
	case *instructions.AddCommand:
		for _, source := range c.SourcePaths {
			if isGit(source) {
				return fmt.Errorf("ADD %s: a git repository cannot be added; clone it in a RUN, or into the context", source)
			}
		}
		if c.KeepGitDir != nil {
			return errors.New("ADD --keep-git-dir: git repositories cannot be added")
		}
	case *instructions.CopyCommand:
		for _, source := range c.SourcePaths {
			if isURL(source) || isGit(source) {
				return fmt.Errorf("COPY %s: a URL can only be fetched by ADD", source)
			}
		}
	case *instructions.HealthCheckCommand:
		if c.Health.StartInterval != 0 {
			return errors.New("HEALTHCHECK --start-interval is not kept in an image; leave it out")
		}
	}
	return nil
}
