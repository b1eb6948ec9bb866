package main

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

func newDesktopInstallMacOSCommand(env *environment) *cobra.Command {
	var r desktop.MacRequest
	var memory, disk byteSize
	var reach string
	c := &cobra.Command{
		Use:   "install-macos NAME",
		Short: "Create a macOS desktop, on a Mac with Apple silicon",
		Long: "Create a desktop and install macOS on it from a restore image: Apple's newest one that this Mac can run in a VM, or the file given with --ipsw.\n" +
			"Apple's image is kept in cache/macos of the state directory for the next desktop. An interrupted download is resumed.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := desktop.CanMacOS(); err != nil {
				return err
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			r.Name, r.Memory, r.DiskSize, r.Network = args[0], int64(memory), int64(disk), network.Mode(reach)
			if err := checkDesktop("arm64", cmp.Or(r.CPUs, desktop.DefaultCPUs), r.Memory, r.DiskSize, r.Network); err != nil {
				return usageError{err}
			}
			if r.Image != "" {
				if r.Image, err = filepath.Abs(r.Image); err != nil {
					return err
				}
			}
			driver, err := env.desktopDriver()
			if err != nil {
				return err
			}
			bars := newProgress(env)
			r.Progress = func(step string, done, total int64) {
				if step == desktop.StepInstall {
					bars.percent(step, done*100/total)
				} else {
					bars.update(builder.Progress{Step: step, Done: done, Total: total})
				}
			}
			m, err := store.InstallMacOS(c.Context(), driver, r)
			bars.close(err == nil)
			if err != nil {
				return fmt.Errorf("installing macOS: %w", err)
			}
			return printDesktops(c.Context(), env, store, []*desktop.Manifest{m})
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&r.Image, "ipsw", "", "a restore image (default: download Apple's newest)")
	c.Flags().Var(&memory, "memory", "memory of the VM (default 4GB, or what macOS needs)")
	c.Flags().IntVar(&r.CPUs, "cpus", 0, "CPUs of the VM (default 2, or what macOS needs)")
	c.Flags().Var(&disk, "disk-size", "capacity of its disk; only written data takes space on the host (default 64GB)")
	c.Flags().StringVar(&reach, "network", string(network.ModeNAT), "what the VM can reach: nat, none, or allow=HOST[:PORT],…: see lumina run --help")
	return c
}
