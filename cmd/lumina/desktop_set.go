package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

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
