package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// dockerfileFlags are those of images create for a Dockerfile.
type dockerfileFlags struct {
	file, context, target   string
	args, secrets, contexts []string
	debug                   bool
	progress, cacheTo       string
	cacheFrom               []string
	memory, disk            byteSize
	cpus                    cpuCount
}

// dockerfileOnly are flags that mean nothing without --file.
var dockerfileOnly = []string{"target", "build-arg", "secret", "build-context", "debug", "progress", "cache-from", "cache-to"}

func (f *dockerfileFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "Dockerfile to make it from; - for standard input")
	flags.StringVar(&f.target, "target", "", "stage of the Dockerfile to make (default the last)")
	flags.StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE for an ARG of the Dockerfile; NAME alone for this environment's value (repeatable)")
	flags.StringArrayVar(&f.secrets, "secret", nil, "id=ID,src=FILE or id=ID,env=NAME for RUN --mount=type=secret (repeatable)")
	flags.StringArrayVar(&f.contexts, "build-context", nil, "NAME=DIR or NAME=REF: what FROM and --from mean by NAME (repeatable)")
	flags.BoolVar(&f.debug, "debug", false, "open a shell in the VM of a RUN that fails")
	flags.StringArrayVar(&f.cacheFrom, "cache-from", nil, "take layers of a Dockerfile's steps from this reference of a registry, too (repeatable)")
	flags.StringVar(&f.cacheTo, "cache-to", "", "send the layers of a Dockerfile's steps to this reference of a registry")
	flags.StringVar(&f.progress, "progress", "auto", "how a Dockerfile's steps are shown: plain, tty, or auto, which is tty on a terminal")
	flags.Var(&f.memory, "memory", "memory of the VMs that run a Dockerfile's RUN (default $LUMINA_MEMORY or 1GB)")
	flags.Var(&f.cpus, "cpus", "CPUs of those VMs (default $LUMINA_CPUS or 2)")
	flags.Var(&f.disk, "disk-size", "size of those VMs' own disks (default $LUMINA_DISK_SIZE or 16GB)")
}

// check finds what does not go together.
func (f *dockerfileFlags) check(c *cobra.Command, args []string, from, recipe string, flags *createFlags) error {
	if f.file == "" {
		if len(args) > 1 {
			return usageError{fmt.Errorf("%q: a context is for --file DOCKERFILE; see %s --help", args[1], c.CommandPath())}
		}
		for _, name := range dockerfileOnly {
			if c.Flags().Changed(name) {
				return usageError{fmt.Errorf("--%s is for --file DOCKERFILE; see %s --help", name, c.CommandPath())}
			}
		}
		return nil
	}
	for flag, list := range map[string][]string{"cache-from": f.cacheFrom, "cache-to": {f.cacheTo}} {
		for _, text := range list {
			if r, err := reference.Parse(text); c.Flags().Changed(flag) && (err != nil || r.Kind != reference.Registry) {
				return usageError{fmt.Errorf("--%s %q: want a reference of a registry, HOST/NAME:TAG", flag, text)}
			}
		}
	}
	switch {
	case f.progress != "auto" && f.progress != "plain" && f.progress != "tty":
		return usageError{fmt.Errorf("--progress %q: want auto, plain or tty", f.progress)}
	case from != "":
		return usageError{errors.New("--from and --file exclude each other: a Dockerfile says FROM")}
	case recipe != "":
		return usageError{errors.New("--recipe and --file exclude each other")}
	case len(flags.steps) > 0:
		return usageError{errors.New("--run and --file exclude each other: a Dockerfile says RUN")}
	}
	if len(args) > 1 {
		f.context = args[1]
	}
	if dockerfile.IsRemote(f.context) {
		return usageError{fmt.Errorf("context %q: a repository is not fetched; do: git clone %s DIR, then name DIR", f.context, strings.SplitN(f.context, "#", 2)[0])}
	}
	if dockerfile.IsRemote(f.file) {
		return usageError{fmt.Errorf("--file %q: it is not fetched; do: curl -fsSL %s | lumina images create NAME --file - CONTEXT", f.file, f.file)}
	}
	return nil
}

// maker reads the Dockerfile and all that it needs, and finds what is wrong with
// that before anything is built.
func (f *dockerfileFlags) maker(env *environment, rt *runtime.Runtime, mode network.Mode, arch string) (builder.Maker, error) {
	vm := vmFlags{image: "default", pull: "missing", memory: f.memory, disk: f.disk, cpus: f.cpus, network: string(mode)}
	options, err := vm.options(env)
	if err != nil {
		return nil, err
	}
	file, name, err := f.read(env)
	if err != nil {
		return nil, err
	}
	o := dockerfile.Options{File: file, Target: f.target, Log: f.log(env), Dial: options.Network.Dial}
	if f.context != "" {
		if err := checkContext(f.context); err != nil {
			return nil, err
		}
		ignore, err := files.ReadIgnore(f.context, name)
		if err != nil {
			return nil, faulty(err)
		}
		if o.Context, err = openContext(f.context, ignore); err != nil {
			return nil, err
		}
	}
	if o.Args, err = f.buildArgs(env); err != nil {
		return nil, err
	}
	if o.Secrets, err = f.readSecrets(env); err != nil {
		return nil, err
	}
	if o.Contexts, err = f.namedContexts(); err != nil {
		return nil, err
	}
	w := workshop{env, rt, options}
	o.Start, o.CacheDisk = w.start, w.cacheDisk
	if f.debug {
		if !term.IsTerminal(int(env.stdin.Fd())) {
			return nil, usageError{errors.New("--debug needs a terminal as standard input")}
		}
		o.Debug = w.debug
	}
	if err := dockerfile.Check(o, arch); err != nil {
		return nil, faulty(err)
	}
	return dockerfile.Maker(o), nil
}

// read reads the Dockerfile; name is its path, empty for standard input.
func (f *dockerfileFlags) read(env *environment) (file *dockerfile.File, name string, err error) {
	if f.file == "-" {
		if term.IsTerminal(int(env.stdin.Fd())) {
			fmt.Fprintln(env.stderr, "reading the Dockerfile from the terminal; end it with Ctrl-D")
		}
		file, err = dockerfile.Parse(env.stdin, "Dockerfile")
		return file, "", faulty(err)
	}
	if info, err := os.Stat(f.file); err == nil && info.IsDir() {
		return nil, "", usageError{fmt.Errorf("--file %s is a directory; name the Dockerfile, and the context after the image's name", f.file)}
	}
	if f.context != "" {
		if err := files.Inside(f.context, f.file); err != nil {
			return nil, "", usageError{fmt.Errorf("--file: %w", err)}
		}
	}
	b, err := env.readFile(f.file, dockerfile.MaxSize)
	if err != nil {
		return nil, "", usageError{fmt.Errorf("opening the Dockerfile: %w", err)}
	}
	file, err = dockerfile.Parse(bytes.NewReader(b), filepath.Base(f.file))
	return file, f.file, faulty(err)
}

func checkContext(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return usageError{fmt.Errorf("opening the context: %w", err)}
	}
	if !info.IsDir() {
		return usageError{fmt.Errorf("the context %s is not a directory", dir)}
	}
	return nil
}

func openContext(dir string, ignore []string) (files.Tree, error) {
	h, err := files.OpenHost(dir, ignore)
	if err != nil {
		return nil, usageError{fmt.Errorf("opening the context: %w", err)}
	}
	return h, nil
}

func (f *dockerfileFlags) buildArgs(env *environment) (map[string]string, error) {
	args := map[string]string{}
	for _, a := range f.args {
		name, value, ok := strings.Cut(a, "=")
		if name == "" || strings.ContainsRune(a, 0) {
			return nil, usageError{fmt.Errorf("--build-arg %q: want NAME=VALUE or NAME", a)}
		}
		if !ok {
			if value = env.getenv(name); value == "" {
				continue // as if it was not given
			}
		}
		args[name] = value
	}
	return args, nil
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 500 << 10

func (f *dockerfileFlags) readSecrets(env *environment) (map[string][]byte, error) {
	secrets := map[string][]byte{}
	for _, s := range f.secrets {
		fields, err := parseFields(s, "id", "src", "source", "env", "type")
		id := fields["id"]
		from := fields["src"] + fields["source"]
		if err == nil && (id == "" || from != "" && fields["env"] != "") {
			err = errors.New("want id=ID,src=FILE or id=ID,env=NAME")
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("--secret %q: %w", s, err)}
		}
		if from == "" {
			name := fields["env"]
			if name == "" {
				name = id
			}
			value := env.getenv(name)
			if value == "" {
				return nil, usageError{fmt.Errorf("--secret %q: the environment has no %s", s, name)}
			}
			secrets[id] = []byte(value)
			continue
		}
		b, err := env.readFile(from, maxSecret)
		if err != nil {
			return nil, usageError{fmt.Errorf("--secret %q: %w", s, err)}
		}
		secrets[id] = b
	}
	return secrets, nil
}

// parseFields reads KEY=VALUE,KEY=VALUE.
func parseFields(s string, known ...string) (map[string]string, error) {
	fields := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return fields, fmt.Errorf("%q is not KEY=VALUE", part)
		}
		found := false
		for _, k := range known {
			found = found || k == key
		}
		if !found {
			return fields, fmt.Errorf("%q is not one of %s", key, strings.Join(known, ", "))
		}
		fields[key] = value
	}
	return fields, nil
}

func (f *dockerfileFlags) namedContexts() (map[string]dockerfile.Context, error) {
	contexts := map[string]dockerfile.Context{}
	for _, c := range f.contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return nil, usageError{fmt.Errorf("--build-context %q: want NAME=DIR or NAME=REF", c)}
		}
		if reference, ok := strings.CutPrefix(value, "docker-image://"); ok {
			contexts[name] = dockerfile.Context{Reference: reference}
			continue
		}
		if layout, ok := strings.CutPrefix(value, "oci-layout://"); ok {
			contexts[name] = dockerfile.Context{Reference: "oci:" + layout}
			continue
		}
		if info, err := os.Stat(value); err == nil && info.IsDir() {
			tree, err := openContext(value, nil)
			if err != nil {
				return nil, err
			}
			contexts[name] = dockerfile.Context{Dir: tree}
			continue
		}
		if dockerfile.IsRemote(value) {
			return nil, usageError{fmt.Errorf("--build-context %q: a repository is not fetched; clone it, and name its directory", c)}
		}
		contexts[name] = dockerfile.Context{Reference: value}
	}
	return contexts, nil
}

// workshop starts the VMs of a build.
type workshop struct {
	env     *environment
	rt      *runtime.Runtime
	options runtime.VMOptions
}

func (w workshop) start(ctx context.Context, s dockerfile.Start) (dockerfile.VM, error) {
	options := w.options
	if s.NoNetwork {
		options.Network = network.ModeNone
	}
	vm, err := w.rt.StartBuild(ctx, s.Dir, options, s.Disks)
	if err != nil {
		return nil, err
	}
	return buildVM{vm}, nil
}

func (w workshop) cacheDisk(ctx context.Context, id string) (*volume.Disk, error) {
	return w.rt.CacheMount(ctx, id)
}

// buildVM is a VM as a build sees it.
type buildVM struct{ *runtime.BuildVM }

func (b buildVM) NextLayer(ctx context.Context, dir string, mounts []dockerfile.Mount) error {
	converted := make([]runtime.LayerMount, len(mounts))
	for i, m := range mounts {
		converted[i] = runtime.LayerMount(m)
	}
	return b.BuildVM.NextLayer(ctx, dir, converted)
}

func (b buildVM) Run(ctx context.Context, c dockerfile.Command) (int, error) {
	exit, err := b.Exec(ctx, runtime.Command{Args: c.Args, Env: c.Env, Dir: c.Dir, User: c.User,
		Stdio: runtime.Stdio{Stdout: c.Output, Stderr: c.Output}})
	return exit.Code, err
}

// debug opens a shell where a command failed.
func (w workshop) debug(ctx context.Context, vm dockerfile.VM, c dockerfile.Command) error {
	fmt.Fprintf(w.env.stderr, "the command failed; this is a shell where it ran (exit ends the build)\n")
	err := execTerminal(ctx, w.env, &vm.(buildVM).Guest, runtime.Command{Args: []string{"/bin/sh"}, Env: c.Env, Dir: c.Dir, User: c.User})
	var code exitCode
	if errors.As(err, &code) {
		return nil // of the shell's last command
	}
	return err
}

// log shows how far a build is: drawn on a terminal, line by line elsewhere.
func (f *dockerfileFlags) log(env *environment) *dockerfile.Log {
	fd := int(env.stderr.Fd())
	if f.progress == "plain" || f.progress != "tty" && !term.IsTerminal(fd) {
		return dockerfile.NewLog(env.stderr)
	}
	return dockerfile.NewTerminalLog(env.stderr, func() (width, height int) {
		width, height, err := term.GetSize(fd)
		if err != nil {
			return 80, 24
		}
		return width, height
	})
}

// openCaches opens what --cache-from names. One that does not exist yet is reported.
func (f *dockerfileFlags) openCaches(ctx context.Context, env *environment) (caches []*builder.LayerCache, done func(), err error) {
	done = func() {
		for n, c := range caches {
			if err := c.Err(); err != nil {
				env.note("%s: a layer was built again: %v", f.cacheFrom[n], err)
			}
			c.Close()
		}
	}
	var there []string
	for _, ref := range f.cacheFrom {
		c, err := builder.OpenLayerCache(ctx, ref)
		if errors.Is(err, oci.ErrNotFound) {
			env.note("%s has no layers yet", ref)
			continue
		}
		if err != nil {
			done()
			return nil, func() {}, fmt.Errorf("--cache-from: %w", err)
		}
		caches, there = append(caches, c), append(there, ref)
	}
	f.cacheFrom = there
	return caches, done, nil
}
