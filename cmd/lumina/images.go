package main

import (
	"context"
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func newImagesCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "images", Short: "Make, list and remove images"}
	c.AddCommand(newImagesCreateCommand(env), newImagesListCommand(env), newCatalogCommand(env), newImagesPullCommand(env),
		newInspectCommand(env, "Print all that is known of an image, as JSON", imageStore, describeImage),
		newRemoveCommand(env, "Remove images that nothing uses", imageStore))
	return c
}

func newImagesCreateCommand(env *environment) *cobra.Command {
	var from, platform, kernel string
	var timeout time.Duration
	var noVerify, rosetta bool
	c := &cobra.Command{
		Use:   "create NAME --from REF",
		Short: "Make an image from a container image",
		Long: `Make an image from a container image.

REF is the name of a local image, a reference in a registry, oci:DIR[:TAG],
oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG].`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				return usageError{fmt.Errorf("--from is missing; see %s --help", c.CommandPath())}
			}
			arch, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("creating image %q took longer than %v (--timeout)", args[0], timeout))
			defer cancel()
			r, err := runtime.Open(runtime.Options{Home: env.getenv("LUMINA_HOME")})
			if err != nil {
				return err
			}
			o := builder.Options{
				Name: args[0], Reference: from, Architecture: arch, Rosetta: rosetta,
				Store: r.Images, CacheDir: filepath.Join(r.Home(), "cache"),
				Kernel: kernelOf(kernel), Initramfs: initramfs.Read,
			}
			if !noVerify {
				o.Verify = r.TryImage
			}
			bars := newProgress(env)
			o.Progress = bars.update
			img, err := builder.Create(ctx, o)
			bars.close(err == nil)
			if err != nil {
				return err
			}
			return printImage(env, args[0], img)
		},
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&from, "from", "", "what to make it from (required)")
	flags.StringVar(&platform, "platform", "linux/"+goruntime.GOARCH, "linux/amd64 or linux/arm64")
	flags.DurationVar(&timeout, "timeout", 30*time.Minute, "give up after this time")
	flags.BoolVar(&noVerify, "no-verify", false, "do not boot the image once before it is installed")
	flags.BoolVar(&rosetta, "rosetta", false, "run amd64 programs in the arm64 VM, on macOS")
	flags.StringVar(&kernel, "kernel", "", "kernel to use instead of Lumina's own (arm64: Image, amd64: vmlinux)")
	return c
}

func parsePlatform(s string) (arch string, err error) {
	arch, ok := strings.CutPrefix(s, "linux/")
	if !ok || (arch != "amd64" && arch != "arm64") {
		return "", usageError{fmt.Errorf("--platform %q: want linux/amd64 or linux/arm64", s)}
	}
	return arch, nil
}

// kernelOf is the kernel of images: a file, or the one built into this program.
func kernelOf(path string) func(arch string) (builder.Kernel, error) {
	if path != "" {
		return func(arch string) (builder.Kernel, error) {
			return builder.KernelFile(path, kernelconfig.CommandLine(arch))
		}
	}
	return func(arch string) (builder.Kernel, error) {
		k, err := kernelconfig.Open(arch)
		if err != nil {
			return builder.Kernel{}, err
		}
		return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Open: k.Open}, nil
	}
}

// imageRow is an image as list prints it.
type imageRow struct {
	Name         string    `json:"name"`
	Architecture string    `json:"architecture,omitempty"`
	Created      time.Time `json:"created,omitzero"`
	Source       string    `json:"source,omitempty"`
	SizeBytes    int64     `json:"size_bytes,omitempty"`
	Error        string    `json:"error,omitempty"`
}

func rowOf(name string, img *image.Image) imageRow {
	row := imageRow{Name: name, Architecture: img.Architecture, Created: img.Created, Source: img.Source.Reference}
	for _, f := range img.Files {
		row.SizeBytes += f.Size
	}
	return row
}

func printImage(env *environment, name string, img *image.Image) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	row := rowOf(name, img)
	if f == formatText {
		_, err = fmt.Fprintf(env.stdout, "%s: %s, %s\n", name, row.Architecture, formatSize(row.SizeBytes))
		return err
	}
	return printJSON(env.stdout, row)
}

func newImagesListCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List images",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			store, err := imageStore(env)
			if err != nil {
				return err
			}
			names, err := store.List()
			if err != nil {
				return err
			}
			rows := []imageRow{}
			for _, name := range names {
				h, err := store.Open(name)
				if err != nil {
					rows = append(rows, imageRow{Name: name, Error: err.Error()})
					continue
				}
				rows = append(rows, rowOf(name, h.Image))
				h.Close()
			}
			if f != formatText {
				return printJSON(env.stdout, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tARCH\tSIZE\tCREATED\tSOURCE")
			for _, r := range rows {
				if r.Error != "" {
					fmt.Fprintf(w, "%s\t\t\t\t%s\n", r.Name, r.Error)
					continue
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Architecture, formatSize(r.SizeBytes), r.Created.Local().Format(time.DateTime), r.Source)
			}
			return w.Flush()
		},
	}
}

func imageStore(env *environment) (*image.Store, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	return image.NewStore(filepath.Join(home, "images")), nil
}

// describeImage is image.json with the image's name.
func describeImage(store *image.Store, name string) (any, error) {
	h, err := store.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return struct {
		Name string `json:"name"`
		*image.Image
	}{name, h.Image}, nil
}
