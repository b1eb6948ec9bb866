package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// desktopUsage marks what of a change or a name is bad usage.
func desktopUsage(err error) error {
	if errors.Is(err, desktop.ErrChange) || errors.Is(err, desktop.ErrName) {
		return usageError{err}
	}
	return err
}

func newDesktopSetCommand(env *environment) *cobra.Command {
	var memory, disk byteSize
	var cpus cpuCount
	var iso, drivers, reach string
	var force bool
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a desktop that is not running: CPUs, memory, disk, ISOs, network",
		Long: "Change a desktop that is not running; its next boot has the changes. If one change is not possible, none is made.\n" +
			"A disk can only grow. Use the guest's own tools to grow its partitions.",
		Example: "  lumina desktop set debian --cpus 4 --memory 8GB --disk-size 128GB\n" +
			"  lumina desktop set debian --iso none",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			change := desktop.Change{Force: force}
			n, m, d, mode := int(cpus), int64(memory), int64(disk), network.Mode(reach)
			given := 0
			for flag, take := range map[string]func(){
				"cpus":      func() { change.CPUs = &n },
				"memory":    func() { change.Memory = &m },
				"disk-size": func() { change.DiskSize = &d },
				"iso":       func() { change.ISO = &iso },
				"drivers":   func() { change.Drivers = &drivers },
				"network":   func() { change.Network = &mode },
			} {
				if c.Flags().Changed(flag) {
					take()
					given++
				}
			}
			if given == 0 {
				return usageError{errors.New("nothing to change: want --cpus, --memory, --disk-size, --iso, --drivers or --network")}
			}
			return changeDesktop(c.Context(), env, args[0], change)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().SortFlags = false
	c.Flags().Var(&cpus, "cpus", "CPUs of the VM")
	c.Flags().Var(&memory, "memory", "memory of the VM")
	c.Flags().Var(&disk, "disk-size", "capacity of its disk; it cannot shrink")
	c.Flags().StringVar(&iso, "iso", "", "the ISO that is in it, or none")
	c.Flags().StringVar(&drivers, "drivers", "", "a second ISO, for example drivers, or none")
	c.Flags().StringVar(&reach, "network", "", "what the VM can reach: nat, none, or allow=HOST[:PORT],…: see lumina run --help")
	c.Flags().BoolVar(&force, "force", false, "use an ISO that does not fit this VM")
	return c
}

func changeDesktop(ctx context.Context, env *environment, id string, change desktop.Change) error {
	store, err := desktopStore(env)
	if err != nil {
		return err
	}
	m, err := store.Change(ctx, id, change)
	if err != nil {
		return desktopUsage(err)
	}
	return printDesktops(ctx, env, store, []*desktop.Manifest{m})
}

func newDesktopRenameCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "rename NAME NEW",
		Short: "Rename a desktop that is not running",
		Args:  usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return changeDesktop(c.Context(), env, args[0], desktop.Change{Name: &args[1]})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopCloneCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "clone NAME NEW",
		Short: "Copy a desktop that is not running",
		Long: "Copy a desktop that is not running. On XFS, Btrfs and APFS the clone is instant and shares unchanged blocks with the original; " +
			"on other file systems the data is copied.\n" +
			"The clone has its own identifier and network address. Its disk is the same, including host name and SSH keys.",
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := desktop.CheckName(args[1]); err != nil {
				return usageError{err}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			driver, err := env.desktopDriver()
			if err != nil {
				return err
			}
			m, err := store.Clone(c.Context(), driver, args[0], args[1])
			if err != nil {
				return err
			}
			return printDesktops(c.Context(), env, store, []*desktop.Manifest{m})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopRmCommand(env *environment) *cobra.Command {
	var now, undo bool
	c := &cobra.Command{
		Use:     "remove NAME…",
		Aliases: []string{"rm"},
		Short:   "Remove desktops that are not running, with all their data",
		Long: fmt.Sprintf("Remove desktops that are not running, with all their data. For %v, lumina desktop restore NAME brings one back; "+
			"after that, its space is freed when the next desktop is created or removed, or by lumina clean. With --now the space is free at once.", desktop.UndoTime),
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if now && undo {
				return usageError{errors.New("--now and --undo exclude each other")}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			if undo {
				for _, name := range args {
					if err := restoreDesktop(c.Context(), env, store, name, ""); err != nil {
						return err
					}
				}
				return nil
			}
			errs := []error{store.PurgeExpired()}
			for _, name := range args {
				if now {
					errs = append(errs, store.Remove(name))
					continue
				}
				m, err := store.SetAside(name)
				if errs = append(errs, err); err == nil {
					env.note("%s is removed; lumina desktop restore %s brings it back", m.Name, m.ID[:8])
				}
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&now, "now", false, "remove it for good at once")
	c.Flags().BoolVar(&undo, "undo", false, "bring removed desktops back, as lumina desktop restore does")
	return c
}

func newDesktopRestoreCommand(env *environment) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "restore NAME",
		Short: "Bring back a desktop removed in the last minute",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			return restoreDesktop(c.Context(), env, store, args[0], name)
		},
	}
	c.Flags().StringVar(&name, "name", "", "its name from now on")
	return c
}

func restoreDesktop(ctx context.Context, env *environment, store *desktop.Store, id, name string) error {
	m, err := store.Restore(id, name)
	if err != nil {
		return desktopUsage(err)
	}
	return printDesktops(ctx, env, store, []*desktop.Manifest{m})
}

func newDesktopResetCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "reset NAME",
		Short: "Press a desktop's reset button: it restarts at once, and unwritten data is lost",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			return d.Reset(c.Context())
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopRestartCommand(env *environment) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "restart NAME",
		Short: "Stop a desktop as lumina desktop stop does, and boot it again",
		Long: "Stop a desktop as lumina desktop stop does, and boot it again in the background with the same options. " +
			"A desktop that is not running is booted without a window. Changes made with lumina desktop set take effect.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding the lumina program: %w", err)
			}
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			o := desktop.Options{Home: home, ID: d.Manifest.ID}
			if o.Driver, err = env.driver(); err != nil {
				return err
			}
			if _, err := d.Restart(c.Context(), program, []string{superviseDesktopCommand}, o, force); err != nil {
				return err
			}
			return printBooted(env, o)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&force, "force", false, "end it at once, even if its process does not answer")
	return c
}
