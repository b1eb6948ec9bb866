package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

func newVolumeCommand(env *environment) *cobra.Command {
	return newGroup("volume", "Manage volumes: disks that outlive VMs", newVolumeCreateCommand(env), newVolumeListCommand(env),
		newInspectCommand(env, "Print everything known about a volume, as JSON", volumeStore, func(s *volume.Store, name string) (any, error) { return s.Inspect(name) }),
		newRemoveCommand(env, "Remove volumes that no VM uses, with all their data", volumeStore))
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
		Short: "Create an empty volume",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := volume.CheckName(args[0]); err != nil {
				return usageError{err}
			}
			if err := (runtime.VMOptions{DiskSize: int64(size)}).CheckSize(); err != nil {
				return usageError{fmt.Errorf("--size: %w", err)}
			}
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			if err := store.Create(args[0], int64(size)); err != nil {
				return err
			}
			info, err := store.Inspect(args[0])
			if err != nil {
				return err
			}
			return printVolumes(env, []volume.Info{info})
		},
	}
	c.Flags().Var(&size, "size", "capacity; only written data takes space on the host")
	return c
}

func newVolumeListCommand(env *environment) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List volumes",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			store, err := volumeStore(env)
			if err != nil {
				return err
			}
			names, err := store.List()
			if err != nil {
				return err
			}
			if quiet {
				return printNames(env, names)
			}
			rows, err := store.InspectAll()
			if err != nil {
				return err
			}
			return printVolumes(env, rows)
		},
	}
	registerQuiet(c, &quiet)
	return c
}

func printVolumes(env *environment, rows []volume.Info) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, append([]volume.Info{}, rows...))
	}
	w := newTable(env.stdout, "NAME", "SIZE", "USED", "IN USE")
	for _, r := range rows {
		if r.Error != "" {
			w.row(r.Name, r.Error, "", "")
			continue
		}
		w.row(r.Name, formatSize(r.Size), formatSize(r.Used), r.InUse)
	}
	return w.print()
}
