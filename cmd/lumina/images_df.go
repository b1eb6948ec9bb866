package main

import (
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime"
)

// kindUsage is what a kind of thing takes of the host's disk.
type kindUsage struct {
	Count int   `json:"count"`
	Bytes int64 `json:"size_bytes"`
	// Unused is what images prune could free.
	Unused int64 `json:"unused_bytes"`
}

type imageUsage struct {
	kindUsage
	// Shared is how much of Bytes is not there again, since another image has it.
	Shared int64 `json:"shared_bytes"`
}

func newImagesDFCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "df",
		Short: "Show the disk space of images and their cache",
		Long: `Show the disk space of images and their cache.

Images with the same kernel or root store it once. On file systems with reflinks
(XFS, btrfs) they also share the common blocks of their lowest layers. SHARED is the
shared part of SIZE.

Layers are those of installed images and the cached results of build steps. Layers
that no image uses are unused; they make the next build faster. Cache mounts are those
of RUN --mount=type=cache.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			u, err := diskUsage(r)
			if err != nil {
				return err
			}
			if f != formatText {
				return printJSON(env.stdout, u)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TYPE\tCOUNT\tSIZE\tSHARED\tUNUSED")
			for _, row := range []struct {
				name string
				imageUsage
			}{{"images", u.Images}, {"layers", imageUsage{kindUsage: u.Layers}}, {"cache mounts", imageUsage{kindUsage: u.Mounts}}} {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", row.name, row.Count, formatSize(row.Bytes), formatSize(row.Shared), formatSize(row.Unused))
			}
			return w.Flush()
		},
	}
}

// usages is what images df prints.
type usages struct {
	Images imageUsage `json:"images"`
	Layers kindUsage  `json:"layers"`
	Mounts kindUsage  `json:"cache_mounts"`
}

func diskUsage(r *runtime.Runtime) (u usages, err error) {
	images, err := r.Images.Usage()
	if err != nil {
		return u, err
	}
	u.Images = imageUsage{kindUsage{Count: images.Count, Bytes: images.Bytes}, images.Shared}
	layers, err := builder.CacheUsage(r.Images, filepath.Join(r.Home(), "cache"))
	if err != nil {
		return u, err
	}
	u.Layers = kindUsage{Count: layers.Count, Bytes: layers.Bytes, Unused: layers.Unused}
	mounts, err := r.CacheMounts()
	if err != nil {
		return u, err
	}
	for _, m := range mounts {
		u.Mounts.Count++
		u.Mounts.Bytes += m.Used
		if !m.InUse {
			u.Mounts.Unused += m.Used
		}
	}
	return u, nil
}

func newImagesPruneCommand(env *environment) *cobra.Command {
	var age timeSpan
	var size byteSize
	var all, mounts bool
	c := &cobra.Command{
		Use:   "prune [--all | --size S | --age T] [--mounts]",
		Short: "Remove layers that no image uses, and cache mounts",
		Long: `Remove layers that no image uses, and cache mounts. Images stay; see images
remove. A build that needed such a layer makes it again.`,
		Example: `  lumina images prune --size 5GB`,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !all && !mounts && age == 0 && size == 0 {
				return usageError{fmt.Errorf("nothing to remove is named: give --all, --size, --age or --mounts; see %s --help", c.CommandPath())}
			}
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			o := builder.PruneOptions{Store: r.Images, CacheDir: filepath.Join(r.Home(), "cache"), Age: time.Duration(age), Size: int64(size)}
			if all {
				o.Age, o.Size = time.Nanosecond, 0
			}
			var freed int64
			if all || age > 0 || size > 0 {
				if freed, err = builder.Prune(c.Context(), o); err != nil {
					return err
				}
			}
			if mounts {
				n, err := r.PruneCacheMounts()
				if freed += n; err != nil {
					return err
				}
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			if f == formatText {
				_, err = fmt.Fprintf(env.stdout, "%s freed\n", formatSize(freed))
				return err
			}
			return printJSON(env.stdout, map[string]int64{"freed_bytes": freed})
		},
	}
	c.Flags().SortFlags = false
	c.Flags().Var(&size, "size", "remove the oldest until the cache has this size, such as 5GB")
	c.Flags().Var(&age, "age", "remove what was not used for this long, such as 720h")
	c.Flags().BoolVar(&all, "all", false, "remove all of them")
	c.Flags().BoolVar(&mounts, "mounts", false, "remove cache mounts that no build uses")
	c.MarkFlagsMutuallyExclusive("all", "size")
	c.MarkFlagsMutuallyExclusive("all", "age")
	return c
}
