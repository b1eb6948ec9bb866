package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// applyRecipe adds what a recipe says to o and returns its tests.
func applyRecipe(o *builder.Options, r *recipe.Recipe, rt *runtime.Runtime) (verify builder.Verifier, err error) {
	o.Apply(r)
	if r.DiskSize != "" {
		size, err := parseSize(r.DiskSize)
		if err != nil {
			return nil, faulty(r.At(err, "disk_size"))
		}
		configure := o.Configure
		o.Configure = func(img *image.Image) {
			configure(img)
			img.DiskSize = size
		}
	}
	var tests []runtime.ImageTest
	for _, t := range r.Tests {
		tests = append(tests, runtime.ImageTest{Command: t.Command, User: t.User, Exit: t.Exit, Stdout: t.Stdout})
	}
	return func(ctx context.Context, img *image.Handle, whole <-chan struct{}) error {
		err := rt.TestImage(ctx, img, whole, tests...)
		var failed *runtime.TestError
		if errors.As(err, &failed) {
			return fmt.Errorf("%w: %w", builder.ErrTest, err)
		}
		return err
	}, nil
}

// faulty is what is wrong with a file that the user wrote, or with what it names on this
// host, found before anything starts: bad usage, as on the command line.
func faulty(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

func readRecipe(env *environment, name string) (*recipe.Recipe, error) {
	b, err := env.readInput(name, recipe.MaxSize)
	if err != nil {
		return nil, usageError{fmt.Errorf("the recipe: %w", err)}
	}
	r, err := recipe.Parse(bytes.NewReader(b), name)
	return r, faulty(err)
}

// beside is a path of a recipe's, which is relative to the recipe.
func beside(r *recipe.Recipe, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(r.Name), name)
}

// recipeMaker is the maker of the recipe's Dockerfile; nil: it has none. f says
// which VMs that has.
func recipeMaker(env *environment, rt *runtime.Runtime, r *recipe.Recipe, f dockerfileFlags, mode network.Mode, arch string) (builder.Maker, error) {
	d := r.Dockerfile
	if d == nil {
		return nil, nil
	}
	f.file, f.context, f.target = beside(r, d.File), beside(r, d.Context), d.Target
	for name, value := range d.Args {
		f.args = append(f.args, name+"="+value)
	}
	m, err := f.maker(env, rt, mode, arch)
	var failed *dockerfile.Error
	if err != nil && !errors.As(err, &failed) {
		return nil, faulty(r.At(err, "dockerfile")) // else it says its own line
	}
	return m, err
}

// recipeCopies are the layers of what a recipe copies from this host.
func recipeCopies(r *recipe.Recipe) (copies []builder.Copied, err error) {
	for i, c := range r.Copy {
		from := beside(r, c.From)
		info, err := os.Stat(from)
		if err != nil {
			return nil, faulty(r.At(err, "copy", i, "from"))
		}
		dir, name := from, "."
		if !info.IsDir() {
			dir, name = filepath.Dir(from), filepath.Base(from)
		}
		tree, err := files.OpenHost(dir, c.Ignore)
		if err != nil {
			return nil, faulty(r.At(err, "copy", i, "ignore"))
		}
		if err := dockerfile.CheckMode(c.Mode); err != nil {
			tree.Close()
			return nil, faulty(r.At(fmt.Errorf("%q: %w", c.Mode, err), "copy", i, "mode"))
		}
		copies = append(copies, builder.Copied{CreatedBy: fmt.Sprintf("copy %s to %s", path.Base(from), c.To), Write: func(ctx context.Context, below *erofs.Inode, w io.Writer) error {
			return dockerfile.Copy(ctx, tree, name, below, c.To, c.Mode, c.UID, c.GID, w)
		}})
	}
	return copies, nil
}

func newRecipeCommand(env *environment) *cobra.Command {
	return newGroup("recipe", "Work with recipes of images", &cobra.Command{
		Use:   "check FILE…",
		Short: "Check recipes without building them, and name the line of each fault",
		Args:  usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			var wrong []error
			for _, name := range args {
				if err := checkRecipe(env, name); err != nil {
					wrong = append(wrong, err)
				}
			}
			return errors.Join(wrong...)
		},
	})
}

// checkRecipe finds what is wrong with a recipe and with what it names on this
// host.
func checkRecipe(env *environment, name string) error {
	r, err := readRecipe(env, name)
	if err != nil {
		return err
	}
	rt, err := env.openRuntime()
	if err != nil {
		return err
	}
	if _, err := applyRecipe(&builder.Options{}, r, rt); err != nil {
		return err
	}
	if _, err := recipeCopies(r); err != nil {
		return err
	}
	_, err = recipeMaker(env, rt, r, dockerfileFlags{}, network.ModeNAT, goruntime.GOARCH)
	return err
}
