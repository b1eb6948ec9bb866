package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

func newVolumeCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "volume", Short: "Keep disks that outlive VMs"}
	c.AddCommand(newVolumeCreateCommand(env), newVolumeListCommand(env), newVolumeInspectCommand(env), newVolumeRemoveCommand(env))
	return c
}

func volumeStore(env *environment) (*volume.Store, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	return volume.NewStore(filepath.Join(home, "volumes")), nil
}

func newVolumeCreateCommand(env *environment) *cobra.Command {
	size := byteSize(volume.DefaultSize)
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an empty volume",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			if err := store.Create(args[0], int64(size)); err != nil {
				return err
			}
			return printVolumes(env, store, args[0])
		},
	}
	c.Flags().Var(&size, "size", "how much it may hold; only what is written takes room")
	return c
}

func newVolumeListCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List volumes",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			names, err := store.List()
			if err != nil {
				return err
			}
			return printVolumes(env, store, names...)
		},
	}
}

func printVolumes(env *environment, store *volume.Store, names ...string) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	rows := []volume.Info{}
	for _, name := range names {
		info, err := store.Inspect(name)
		if err != nil {
			return err
		}
		rows = append(rows, info)
	}
	if f != formatText {
		return printJSON(env.stdout, rows)
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tUSED\tIN USE")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\n", r.Name, formatSize(r.Size), formatSize(r.Used), r.InUse)
	}
	return w.Flush()
}

func newVolumeInspectCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Print what is known of a volume, as JSON",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			info, err := store.Inspect(args[0])
			if err != nil {
				return err
			}
			return printJSON(env.stdout, info)
		},
		ValidArgsFunction: completeVolumes(env),
	}
}

func newVolumeRemoveCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME…",
		Short: "Remove volumes that no VM uses, and all they hold",
		Args:  usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				errs = append(errs, store.Remove(name))
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeVolumes(env),
	}
}

// completeVolumes completes arguments with the names of volumes.
func completeVolumes(env *environment) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		store, err := volumeStore(env)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := store.List()
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
