package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopCommand(env *environment) *cobra.Command {
	return newGroup("desktop", "Run desktops: whole systems with a screen, installed from ISOs",
		newDesktopCreateCommand(env), newDesktopBootCommand(env), newDesktopLsCommand(env), newDesktopStopCommand(env),
		newDesktopRmCommand(env), newDesktopScreenshotCommand(env), newDesktopTypeCommand(env), newDesktopKeyCommand(env),
		newDesktopClickCommand(env), newDesktopOpenCommand(env), newDesktopCatalogCommand(env), newDesktopInstallMacOSCommand(env))
}

func desktopStore(env *environment) (*desktop.Store, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	return desktop.NewStore(home), nil
}

// openDesktop finds a desktop that is to be driven.
func openDesktop(env *environment, id string) (*desktop.Client, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	return desktop.Open(home, id)
}

// completeDesktops completes a first argument with the names of desktops.
func completeDesktops(env *environment) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		store, err := desktopStore(env)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, _ := store.List()
		var names []string
		for _, m := range all {
			names = append(names, m.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func newDesktopLsCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List desktops",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			all, err := store.List()
			if err != nil {
				return err
			}
			return printDesktops(env, store, all)
		},
	}
	env.registerJSON(c)
	return c
}

// desktopRow is a desktop with what only its processes know.
type desktopRow struct {
	ID           string              `json:"id"`
	Name         string              `json:"name"`
	Family       desktop.Family      `json:"osFamily"`
	Variant      string              `json:"osVariant"`
	Architecture string              `json:"architecture"`
	Memory       int64               `json:"memoryBytes"`
	CPUs         int                 `json:"cpuCount"`
	DiskSize     int64               `json:"diskBytes"`
	MAC          string              `json:"macAddress"`
	Network      runtime.NetworkMode `json:"networkMode"`
	Running      bool                `json:"running"`
	Path         string              `json:"path"`
}

func printDesktops(env *environment, store *desktop.Store, all []*desktop.Manifest) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	rows := []desktopRow{}
	for _, m := range all {
		rows = append(rows, desktopRow{m.ID, m.Name, m.Family, m.Variant, m.Architecture, m.Memory, m.CPUs, m.DiskSize, m.MAC, m.Network, store.Running(m), store.Path(m)})
	}
	if f != formatText {
		return printJSON(env.stdout, rows)
	}
	w := newTable(env.stdout, "NAME", "OS", "ARCH", "CPUS", "MEMORY", "DISK", "RUNNING")
	for _, r := range rows {
		w.row(r.Name, r.Variant, r.Architecture, r.CPUs, formatSize(r.Memory), formatSize(r.DiskSize), r.Running)
	}
	return w.print()
}

func newDesktopRmCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME…",
		Aliases: []string{"rm"},
		Short:   "Remove desktops that are not running, and all they hold",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				errs = append(errs, store.Remove(name))
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopCatalogCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "catalog",
		Short: "List the operating systems whose ISOs are known",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			all, err := desktop.Catalog()
			if err != nil {
				return err
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			if f != formatText {
				return printJSON(env.stdout, all)
			}
			w := newTable(env.stdout, "ID", "NAME", "ARCH", "URL")
			for _, o := range all {
				w.row(o.ID, o.Name, o.Architecture, o.URL)
			}
			return w.print()
		},
	}
}
