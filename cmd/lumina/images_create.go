package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// createFlags are the flags of every command that makes an image.
type createFlags struct {
	platform, kernel string
	timeout          timeSpan
	replace          bool
	noVerify         bool
	rosetta          bool
	maxSize          byteSize
	steps            []string
	noCache          bool
	network          string
	dockerfile       dockerfileFlags
}

func (f *createFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.platform, "platform", "linux/"+goruntime.GOARCH, "linux/amd64 or linux/arm64")
	f.timeout = timeSpan(30 * time.Minute)
	flags.Var(&f.timeout, "timeout", "give up after this time; 0 for never")
	flags.BoolVar(&f.replace, "replace", false, "replace an image of that name")
	flags.BoolVar(&f.noVerify, "no-verify", false, "do not boot the image once before it is installed")
	flags.BoolVar(&f.rosetta, "rosetta", false, "run amd64 programs in the arm64 VM, on macOS")
	registerMaxSize(c, &f.maxSize)
	flags.StringVar(&f.kernel, "kernel", "", "kernel to use instead of Lumina's own (arm64: Image, amd64: vmlinux)")
}

// create makes an image and prints it.
func (f *createFlags) create(ctx context.Context, env *environment, name, from string, r *recipe.Recipe) error {
	arch, err := parsePlatform(f.platform)
	if err != nil {
		return err
	}
	mode := network.Mode(f.network)
	if mode == "" {
		mode = network.ModeNAT
	}
	if err := mode.Check(); err != nil {
		return usageError{err}
	}
	if err := image.CheckName(name); err != nil {
		return usageError{err}
	}
	if f.rosetta && arch != "arm64" {
		return usageError{fmt.Errorf("--rosetta is for arm64 images, which run on Macs with Apple silicon, and this one is %s; give --platform linux/arm64 or leave it out", arch)}
	}
	if from != "" && image.CheckName(from) != nil {
		if err := checkSource(from); err != nil {
			return usageError{fmt.Errorf("--from: %w", err)}
		}
	}
	if err := f.checkKernel(); err != nil {
		return err
	}
	ctx, cancel := f.limit(ctx, "creating", name)
	defer cancel()
	// Little is kept of what is read: garbage would be half of the memory.
	debug.SetGCPercent(50)
	rt, err := env.openRuntime()
	if err != nil {
		return err
	}
	o := builder.Options{
		Name: name, Reference: from, Architecture: arch, Rosetta: f.rosetta, MaxSize: int64(f.maxSize),
		Store: rt.Images, CacheDir: filepath.Join(rt.Home(), "cache"),
		Kernel: kernelOf(f.kernel), Initramfs: initramfs.Read,
		Steps: f.steps, NoCache: f.noCache, Replace: f.replace,
	}
	verify := builder.Verifier(func(ctx context.Context, img *image.Handle, whole <-chan struct{}) error {
		return rt.TestImage(ctx, img, whole)
	})
	if r != nil {
		if r.Kernel.Fragment != "" || r.Kernel.Full {
			if f.kernel != "" {
				return usageError{errors.New("--kernel and the recipe's kernel exclude each other")}
			}
			o.Kernel = ownKernel(ctx, env, r)
		}
		if verify, err = applyRecipe(&o, r, rt); err != nil {
			return err
		}
		if o.Copies, err = recipeCopies(r); err != nil {
			return err
		}
		if o.Make, err = recipeMaker(env, rt, r, f.dockerfile, mode, arch); err != nil {
			return err
		}
	}
	if f.dockerfile.file != "" {
		if o.Make, err = f.dockerfile.maker(env, rt, mode, arch); err != nil {
			return err
		}
	}
	if !f.noVerify {
		o.Verify = verify
	}
	bars := newProgress(env)
	if o.Make != nil {
		bars = &progress{} // a Dockerfile's steps say themselves how far they are
	}
	o.Progress = bars.update
	o.RunStep = func(ctx context.Context, s builder.Step, changes io.Writer) error {
		fmt.Fprintf(env.stderr, "step %d of %d: %s\n", s.Number, s.Total, printable.Lines(s.Command))
		last := vm.NewTail(2 << 10)
		err := rt.RunStep(ctx, s.Dir, runtime.VMOptions{Network: mode}, s.Command, io.MultiWriter(env.stderr, last), changes)
		if said := strings.TrimSpace(last.String()); err != nil && said != "" {
			err = fmt.Errorf("%w; its last output:\n%s", err, said)
		}
		return err
	}
	caches, closeCaches, err := f.dockerfile.openCaches(ctx, env)
	if err != nil {
		return err
	}
	o.CacheFrom, o.Used = caches, &builder.UsedLayers{}
	img, err := builder.Create(ctx, o)
	closeCaches()
	bars.close(err == nil)
	if err != nil {
		return f.explain(err)
	}
	if to := f.dockerfile.cacheTo; to != "" {
		if _, err := builder.PushLayerCache(ctx, to, o.Used, nil); err != nil {
			return fmt.Errorf("image %q was made, but its layers were not sent: %w", name, err)
		}
	}
	return printImage(env, name, img)
}

// checkKernel looks whether there is a kernel where --kernel says.
func (f *createFlags) checkKernel() error {
	if f.kernel == "" {
		return nil
	}
	if _, err := os.Stat(f.kernel); err != nil {
		return usageError{fmt.Errorf("--kernel: %w", err)}
	}
	return nil
}

// limit is ctx with the flags' timeout.
func (f *createFlags) limit(ctx context.Context, what, name string) (context.Context, context.CancelFunc) {
	if f.timeout == 0 {
		return ctx, func() {}
	}
	limit := time.Duration(f.timeout)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s image %q took longer than %v (--timeout)", what, name, limit))
}

// explain adds what to do about an error, and whose it is.
func (f *createFlags) explain(err error) error {
	switch {
	case errors.Is(err, image.ErrExists):
		return fmt.Errorf("%w; --replace replaces it", err)
	case errors.Is(err, reference.ErrInvalid):
		return usageError{err}
	}
	return orMaxSize(err, int64(f.maxSize))
}

func newImagesCreateCommand(env *environment) *cobra.Command {
	var from, file string
	var flags createFlags
	c := &cobra.Command{
		Use:   "create NAME --from REF [--run CMD]… | create NAME --recipe FILE | create NAME --file DOCKERFILE [CONTEXT]",
		Short: "Make an image from a container image or another image",
		Long: `Make an image from a container image or another image.

REF is a local image, a reference in a registry, oci:DIR[:TAG],
oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], or mmdebstrap:SUITE[,VARIANT]:
a Debian root file system made on this host. An existing image is only replaced
with --replace.

A recipe is a YAML file with all of this and more, and with tests that the image
must pass; see recipes/ and recipes/schema.json.

Each --run runs a command in the shell of a VM of the image so far; its changes
become one more layer. If the same command was run on the same image before, the
layer comes from the cache.

A Dockerfile has the meaning it has to BuildKit; - reads it from standard input.
CONTEXT is the directory that COPY and ADD read, without what its .dockerignore
excludes. Each RUN runs in a VM; where possible, one VM serves a whole stage.`,
		Example: `  lumina images create debian --from debian:12
  lumina images create tools --from debian --run 'apt-get update && apt-get install -y git'
  lumina images create app --file Dockerfile .`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := flags.dockerfile.check(c, args, from, file, &flags); err != nil {
				return err
			}
			for _, step := range flags.steps {
				if strings.TrimSpace(step) == "" {
					return usageError{errors.New("--run: the command is empty")}
				}
			}
			switch {
			case flags.dockerfile.file != "":
				return flags.create(c.Context(), env, args[0], "", nil)
			case from != "" && file != "":
				return usageError{errors.New("--from and --recipe exclude each other")}
			case file != "":
				r, err := readRecipe(env, file)
				if err != nil {
					return err
				}
				return flags.create(c.Context(), env, args[0], "", r)
			case from == "":
				return usageError{fmt.Errorf("--from, --file or --recipe is missing; see %s --help", c.CommandPath())}
			}
			return flags.create(c.Context(), env, args[0], from, nil)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&from, "from", "", "what to make it from")
	c.Flags().StringVar(&file, "recipe", "", "recipe to make it from; - for standard input")
	c.Flags().StringArrayVar(&flags.steps, "run", nil, "run a command in a VM of the image, and keep what it changes (repeatable)")
	c.Flags().BoolVar(&flags.noCache, "no-cache", false, "run every step, even if its result is cached")
	c.Flags().StringVar(&flags.network, "network", "", "what --run and RUN can reach: nat, none or allow=… (default nat)")
	flags.dockerfile.register(c)
	flags.register(c)
	return c
}

func parsePlatform(s string) (arch string, err error) {
	p, err := oci.ParsePlatform(s)
	if err != nil {
		return "", usageError{fmt.Errorf("--platform: %w", err)}
	}
	return p.Architecture, nil
}

// kernelOf is the kernel of images: a file, or the one built into this program.
func kernelOf(path string) func(arch string) (builder.Kernel, error) {
	if path != "" {
		return func(arch string) (builder.Kernel, error) {
			return builder.KernelFile(path, kernelconfig.CommandLine(arch))
		}
	}
	return func(arch string) (builder.Kernel, error) {
		open := kernelconfig.Open
		if goruntime.GOOS == "darwin" && arch == "amd64" {
			open = kernelconfig.OpenEFI // Virtualization.framework boots a bzImage
		}
		k, err := open(arch)
		if err != nil {
			return builder.Kernel{}, err
		}
		return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Default: true, Open: k.Open}, nil
	}
}

// ownKernel is the kernel of a recipe that has one.
func ownKernel(ctx context.Context, env *environment, r *recipe.Recipe) func(arch string) (builder.Kernel, error) {
	return func(arch string) (builder.Kernel, error) {
		fragment, err := r.Kernel.Fragment, error(nil)
		if r.Kernel.Full {
			fragment, err = kernelconfig.Full(arch, fragment)
		}
		var built *kernelconfig.Built
		if err == nil {
			built, err = kernelconfig.Build(ctx, arch, fragment, env.getenv("LUMINA_CACHE"), env.stderr)
		}
		if err != nil {
			return builder.Kernel{}, fmt.Errorf("%s: %w", r.Name, err)
		}
		return builder.Kernel{Version: built.Kernel.Version, CommandLine: kernelconfig.CommandLine(arch), Fragment: fragment, Open: built.Kernel.Open}, nil
	}
}

// checkSource says what is wrong with a reference, or that the file of a local one is not
// there.
func checkSource(from string) error {
	ref, err := reference.Parse(from)
	if err != nil {
		return err
	}
	if _, local := ref.Local(); local {
		path, _ := reference.SplitTag(ref.Rest)
		_, err = os.Stat(path)
	}
	return err
}
