package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

func newDesktopCommand(env *environment) *cobra.Command {
	return newGroup("desktop", "Run desktops: operating systems with a screen, installed from ISOs",
		newDesktopCreateCommand(env), newDesktopBootCommand(env), newDesktopLsCommand(env), newDesktopStopCommand(env),
		newDesktopRestartCommand(env), newDesktopResetCommand(env), newDesktopSetCommand(env), newDesktopRenameCommand(env), newDesktopCloneCommand(env),
		newDesktopRmCommand(env), newDesktopRestoreCommand(env), newDesktopExecCommand(env),
		newDesktopScreenshotCommand(env), newDesktopTypeCommand(env), newDesktopKeyCommand(env),
		newDesktopClickCommand(env), newDesktopOpenCommand(env), newDesktopCatalogCommand(env), newDesktopInstallMacOSCommand(env), newAppCommand(env))
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

// desktopUsage marks an error about a change or a name as bad usage.
func desktopUsage(err error) error {
	if errors.Is(err, desktop.ErrChange) || errors.Is(err, desktop.ErrName) {
		return usageError{err}
	}
	return err
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
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			all, err := store.List()
			if err != nil {
				return err
			}
			damaged, err := store.Damaged()
			if err != nil {
				return err
			}
			return printDesktops(c.Context(), env, store, all, damaged...)
		},
	}
	return c
}

// desktopRow is a desktop with what it takes of the host.
type desktopRow struct {
	ID           string         `json:"id"`
	Name         string         `json:"name"`
	Family       desktop.Family `json:"osFamily"`
	Variant      string         `json:"osVariant"`
	Architecture string         `json:"architecture"`
	Memory       int64          `json:"memoryBytes"`
	CPUs         int            `json:"cpuCount"`
	DiskSize     int64          `json:"diskBytes"`
	DiskUsed     int64          `json:"diskUsedBytes"` // of the host's disk
	MAC          string         `json:"macAddress"`
	Network      network.Mode   `json:"networkMode"`
	ISO          string         `json:"installMedium,omitempty"`
	Drivers      string         `json:"driversISO,omitempty"`
	SecureBoot   bool           `json:"secureBoot"`
	TPM          bool           `json:"tpm"`
	LastBooted   *time.Time     `json:"lastBootedAt,omitempty"`
	Running      bool           `json:"running"`
	// Silent: its process does not answer.
	Silent bool `json:"silent,omitempty"`
	// What it takes while it runs.
	Uptime     int64   `json:"uptimeSeconds,omitempty"`
	CPUSeconds float64 `json:"cpuSeconds,omitempty"`
	MemoryUsed int64   `json:"memoryUsedBytes,omitempty"`
	Path       string  `json:"path"`
	// Error is why it cannot be read; then its name is its identifier.
	Error string `json:"error,omitempty"`
}

func printDesktops(ctx context.Context, env *environment, store *desktop.Store, all []*desktop.Manifest, damaged ...*desktop.DamagedError) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	rows := []desktopRow{}
	for i, figures := range store.Figures(ctx, all...) {
		m := all[i]
		r := desktopRow{ID: m.ID, Name: m.Name, Family: m.Family, Variant: m.Variant, Architecture: m.Architecture, Memory: m.Memory, CPUs: m.CPUs,
			DiskSize: m.DiskSize, DiskUsed: figures.Disk, MAC: m.MAC, Network: m.Network, ISO: m.ISO, Drivers: m.Drivers, SecureBoot: m.SecureBoot, TPM: m.TPM,
			LastBooted: m.LastBooted, Running: figures.Running, Silent: figures.Silent, Path: store.Path(m)}
		if s := figures.Status; s != nil {
			r.Uptime, r.CPUSeconds, r.MemoryUsed = s.Uptime, s.CPU.Seconds(), s.Memory
		}
		rows = append(rows, r)
	}
	for _, d := range damaged {
		m := &desktop.Manifest{ID: d.ID}
		rows = append(rows, desktopRow{ID: d.ID, Name: d.ID, Running: store.Running(m), Path: store.Path(m), Error: fmt.Sprintf("%v; %s", d.Err, d.Remedy())})
	}
	if f != formatText {
		return printJSON(env.stdout, rows)
	}
	w := newTable(env.stdout, "NAME", "OS", "ARCH", "CPUS", "MEMORY", "DISK", "USED", "RUNNING")
	for _, r := range rows {
		if r.Error != "" {
			w.row(r.Name, "", "", "", "", "", "", r.Error)
			continue
		}
		running := strconv.FormatBool(r.Running)
		if r.Silent {
			running = "silent"
		}
		w.row(r.Name, r.Variant, r.Architecture, r.CPUs, formatSize(r.Memory), formatSize(r.DiskSize), formatSize(r.DiskUsed), running)
	}
	return w.print()
}

func newDesktopCatalogCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "catalog",
		Short: "List the operating systems with known ISOs",
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
