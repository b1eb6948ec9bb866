package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/disk"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/outfile"
)

func newImagesExportCommand(env *environment) *cobra.Command {
	var o disk.Options
	var size byteSize
	c := &cobra.Command{
		Use:   "export NAME -o FILE.{raw,qcow2,vhd,iso}",
		Short: "Export an image as a disk that EFI firmware boots",
		Long: `Export an image as a disk that EFI firmware of its architecture boots.

The disk has the image's root, read-only, and a partition for what is written,
which stays from boot to boot. An ISO has its root as a file and what is written
in memory, and forgets. The same image gives the same bytes.

The console has a shell of root's, without a password, when the image has one;
with --init systemd, or in an image whose recipe says so, the image's systemd is
PID 1 and does what it is set up for.
Either way Lumina's agent answers on the virtio-serial port
"org.lumina.agent.0" and on vsock, where the machine has one.`,
		Example: `  lumina images export debian -o debian.qcow2
  lumina images export desktop --init systemd --disk-size 64GB -o desktop.raw`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Path == "" {
				return usageError{errors.New("-o is missing: the file to write")}
			}
			if err := checkDiskFile(o.Path, o.Force); err != nil {
				return err
			}
			if err := image.CheckInit(o.Init); err != nil {
				return usageError{err}
			}
			if err := disk.CheckDataSize(int64(size)); size != 0 && err != nil {
				return usageError{err}
			}
			store, err := imageStore(env)
			if err != nil {
				return err
			}
			name, err := localName(store, args[0])
			if err != nil {
				return err
			}
			if o.Image, err = store.Open(name); err != nil {
				return err
			}
			defer o.Image.Close()
			o.Init = cmp.Or(o.Init, o.Image.Init)
			if err := bootable(c.Context(), env, &o); err != nil {
				return err
			}
			o.DataSize = cmp.Or(int64(size), o.Image.DiskSize, 16<<30)
			parents, err := outfile.MakeParents(o.Path)
			if err != nil {
				return err
			}
			bars := newProgress(env)
			o.Progress = func(done, total int64) {
				bars.update(builder.Progress{Step: "export", Done: done, Total: total})
			}
			err = disk.Export(c.Context(), o)
			bars.close(err == nil)
			if err != nil {
				parents.Remove()
				return err
			}
			return printDisk(env, args[0], o)
		},
		ValidArgsFunction: completeNames(env, imageStore),
	}
	c.Flags().SortFlags = false
	c.Flags().StringVarP(&o.Path, "output", "o", "", "file to write; its name says the format")
	c.Flags().Var(&size, "disk-size", "size of what can be written (default the image's, or 16GB)")
	c.Flags().StringVar(&o.Init, "init", "", "PID 1: lumina, or the image's systemd (default the image's choice)")
	c.Flags().BoolVar(&o.Force, "force", false, "replace the file if there is one")
	return c
}

// checkDiskFile says why a disk cannot be written to a path, before it is made.
func checkDiskFile(path string, force bool) error {
	if err := disk.CheckPath(path); err != nil {
		return usageError{err}
	}
	to, err := outfile.Check(path)
	switch {
	case err != nil:
		return usageError{err}
	case !to.Regular:
		return usageError{fmt.Errorf("%q is a device or FIFO; name a regular file: a disk is not written in order", path)}
	case to.Exists && !force:
		return fmt.Errorf("%q: %w; --force replaces it", path, disk.ErrExists)
	}
	return nil
}

// bootable adds the loader and the kernel that EFI firmware can start. That of
// arm64's images is one; amd64's have another form of theirs.
func bootable(ctx context.Context, env *environment, o *disk.Options) (err error) {
	arch := o.Image.Architecture
	if o.Loader, err = kernelconfig.Loader(arch); err != nil {
		return err
	}
	if arch != "amd64" {
		o.Kernel = disk.Kernel{Size: o.Image.Files[image.Kernel].Size, Open: func() (io.ReadCloser, error) { return o.Image.Open(image.Kernel) }}
		return nil
	}
	k, err := kernelForEFI(ctx, env, o.Image)
	if err != nil {
		return err
	}
	if k.Version != o.Image.Kernel.Version {
		env.note("the disk gets kernel %s, the image has %s in a form that EFI cannot start", k.Version, o.Image.Kernel.Version)
	}
	o.Kernel = disk.Kernel{Size: k.Size, Open: k.Open}
	return nil
}

// kernelForEFI is Lumina's kernel, or the image's own, which is in the cache of
// kernels when the image was made on this host.
func kernelForEFI(ctx context.Context, env *environment, img *image.Handle) (kernelconfig.Kernel, error) {
	if img.Kernel.Fragment == "" {
		return kernelconfig.OpenEFI(img.Architecture)
	}
	built, err := kernelconfig.Build(ctx, img.Architecture, img.Kernel.Fragment, env.stderr)
	if err != nil {
		return kernelconfig.Kernel{}, fmt.Errorf("the image's kernel in a form that EFI can start: %w", err)
	}
	return built.EFI, nil
}

func printDisk(env *environment, name string, o disk.Options) error {
	info, err := os.Stat(o.Path)
	if err != nil {
		return err
	}
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f == formatText {
		_, err = fmt.Fprintf(env.stdout, "%s: %s, %s\n", o.Path, o.Image.Architecture, formatSize(info.Size()))
		return err
	}
	return printJSON(env.stdout, map[string]any{"name": name, "path": o.Path, "architecture": o.Image.Architecture, "size_bytes": info.Size()})
}
