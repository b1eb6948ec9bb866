package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
	var place, kernel string
	c := &cobra.Command{
		Use:   "export NAME -o FILE.{raw,qcow2,vhd,vhdx,vmdk,iso}",
		Short: "Export an image as a disk that EFI firmware boots",
		Long: `Export an image as a disk that EFI firmware of its architecture boots.

The disk has the image's root, read-only, and a writable partition that keeps its
data from boot to boot and grows at the next boot on a larger disk. An ISO has the
root as a file and keeps written data in memory only. The same image gives the same
bytes.

--for selects the format, the kernel and the consoles for the place where it will
boot:

` + placesHelp() + `
Raw disks and the disks for gcp and azure are written in full size; their writable
part has 1GB at first. The kernel with every driver is not part of this program. It is
built on this host once (20 minutes; needs a compiler), or given with --kernel.
Releases may contain it as kernel-full-amd64.

The screen and the first serial port have a root shell without a password, if the
image has a shell. With --init systemd, or if the image's recipe says so, PID 1 is
the image's systemd, which starts what it is configured to start.
In both cases lumina's agent answers on the virtio-serial port "org.lumina.agent.0",
and on vsock if the machine has it.`,
		Example: `  lumina images export debian -o debian.qcow2
  lumina images export web --for azure -o web.vhd
  lumina images export desktop --init systemd --disk-size 64GB -o desktop.raw`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Path == "" {
				return usageError{errors.New("-o is missing: name the file to write")}
			}
			if place != "" {
				if o.For, err = disk.FindPlace(place); err != nil {
					return usageError{fmt.Errorf("--for: %w", err)}
				}
			}
			if err := checkDiskFile(o.Path, o.For, o.Force); err != nil {
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
			if err := bootable(c.Context(), env, &o, kernel); err != nil {
				return err
			}
			o.DataSize = cmp.Or(int64(size), o.Image.DiskSize, 16<<30)
			if size == 0 && o.For != nil && !disk.Sparse(o.Path, o.For) {
				o.DataSize = 1 << 30
			}
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
			if o.For != nil {
				env.note("next: %s", o.For.Next(o.Path, o.Image.Architecture))
			}
			return printDisk(env, args[0], o)
		},
		ValidArgsFunction: completeNames(env, imageStore),
	}
	c.Flags().SortFlags = false
	c.Flags().StringVarP(&o.Path, "output", "o", "", "file to write; its extension selects the format, and missing parent directories are created")
	c.Flags().StringVar(&place, "for", "", "where it will boot: "+strings.Join(disk.Places(), ", "))
	c.Flags().StringVar(&kernel, "kernel", "", "kernel that EFI can start, to use instead of Lumina's")
	c.Flags().Var(&size, "disk-size", "size of the writable part (default the image's, or 16GB)")
	c.Flags().StringVar(&o.Init, "init", "", "PID 1: lumina, or the image's systemd (default the image's choice)")
	c.Flags().BoolVar(&o.Force, "force", false, "replace the file if there is one")
	if err := c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(disk.Places(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

// placesHelp is a table of what --for knows.
func placesHelp() string {
	var b strings.Builder
	for _, name := range disk.Places() {
		p, err := disk.FindPlace(name)
		if err != nil {
			continue
		}
		drivers := "the kernel of VMs"
		if p.Drivers {
			drivers = "the kernel with every driver"
		}
		fmt.Fprintf(&b, "  %-11s %-16s %s\n", name, strings.Join(p.Formats, " "), drivers)
	}
	return b.String()
}

// checkDiskFile says why a disk cannot be written to a path, before it is made.
func checkDiskFile(path string, place *disk.Place, force bool) error {
	if err := disk.CheckPath(path, place); err != nil {
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

// bootable adds the loader and the kernel that EFI firmware can start: one of the
// user's, one with the drivers of a place, or the image's. That of arm64's images is
// one; amd64's have another form of theirs.
func bootable(ctx context.Context, env *environment, o *disk.Options, file string) (err error) {
	arch := o.Image.Architecture
	if o.Loader, err = kernelconfig.Loader(arch); err != nil {
		return err
	}
	if file != "" {
		o.Kernel, err = kernelOfFile(file, arch)
		return err
	}
	if o.For != nil && o.For.Drivers {
		k, err := kernelWithDrivers(ctx, env, o.Image)
		if err != nil {
			such := "such as kernel-full-amd64 of a release"
			if arch != "amd64" {
				such = "one of " + arch + " that has the drivers of that place"
			}
			return fmt.Errorf("a disk for %s: %w; name a kernel that EFI can start with --kernel, %s", o.For.Name, err, such)
		}
		o.Kernel = disk.Kernel{Size: k.Size, Open: k.Open}
		return nil
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
		env.note("the disk gets kernel %s; EFI cannot start the image's own, %s", k.Version, o.Image.Kernel.Version)
	}
	o.Kernel = disk.Kernel{Size: k.Size, Open: k.Open}
	return nil
}

// maxKernel bounds a kernel of the user's, in bytes.
const maxKernel = 256 << 20

// kernelOfFile is a kernel of the user's.
func kernelOfFile(file, arch string) (disk.Kernel, error) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return disk.Kernel{}, usageError{fmt.Errorf("--kernel: %w", cmp.Or(err, fmt.Errorf("%q is not a file", file)))}
	}
	f, err := os.Open(file)
	if err != nil {
		return disk.Kernel{}, usageError{fmt.Errorf("--kernel: %w", err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return disk.Kernel{}, err
	}
	machine, ok := efiMachine(f)
	if !ok || !info.Mode().IsRegular() || info.Size() > maxKernel {
		return disk.Kernel{}, usageError{fmt.Errorf("--kernel: %q is not a kernel that EFI can start: want a bzImage of amd64 or an Image of arm64", file)}
	}
	if machine != efiMachines[arch] {
		return disk.Kernel{}, usageError{fmt.Errorf("--kernel: %q is for another architecture than the image, %s", file, arch)}
	}
	return disk.Kernel{Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(file) }}, nil
}

// efiMachines are the architectures of programs of EFI (IMAGE_FILE_MACHINE of PE).
var efiMachines = map[string]uint16{"amd64": 0x8664, "arm64": 0xaa64}

// efiMachine is what a program of EFI was made for; false: it is none.
func efiMachine(r io.ReaderAt) (machine uint16, ok bool) {
	head, at := make([]byte, 64), make([]byte, 6)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[:2]) != "MZ" {
		return 0, false
	}
	if _, err := r.ReadAt(at, int64(binary.LittleEndian.Uint32(head[60:]))); err != nil || string(at[:4]) != "PE\x00\x00" {
		return 0, false
	}
	return binary.LittleEndian.Uint16(at[4:]), true
}

// kernelWithDrivers is the full flavour of Lumina's kernel, or of the image's own.
func kernelWithDrivers(ctx context.Context, env *environment, img *image.Handle) (kernelconfig.Kernel, error) {
	fragment, err := kernelconfig.Full(img.Architecture, img.Kernel.Fragment)
	if err != nil {
		return kernelconfig.Kernel{}, err
	}
	built, err := kernelconfig.Build(ctx, img.Architecture, fragment, env.getenv("LUMINA_CACHE"), env.stderr)
	if err != nil {
		return kernelconfig.Kernel{}, err
	}
	return built.EFI, nil
}

// kernelForEFI is Lumina's kernel, or the image's own, which is in the cache of
// kernels when the image was made on this host.
func kernelForEFI(ctx context.Context, env *environment, img *image.Handle) (kernelconfig.Kernel, error) {
	if img.Kernel.Fragment == "" {
		return kernelconfig.OpenEFI(img.Architecture)
	}
	built, err := kernelconfig.Build(ctx, img.Architecture, img.Kernel.Fragment, env.getenv("LUMINA_CACHE"), env.stderr)
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
