package main

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopCreateCommand(env *environment) *cobra.Command {
	var r desktop.Request
	var memory, disk byteSize
	var os, network string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a desktop of an installation medium, or of a disk",
		Example: "  lumina desktop create debian --iso debian.iso\n" +
			"  lumina images export desktop --init systemd -o d.qcow2 && lumina desktop create mine --disk d.qcow2",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if r.Medium == "" && r.Disk == "" {
				return usageError{errors.New("want --iso, an installation medium, or --disk, the image of a disk")}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			r.Name, r.Memory, r.DiskSize, r.Network = args[0], int64(memory), int64(disk), runtime.NetworkMode(network)
			if os != "" {
				if r.OS, err = desktop.FindOS(os); err != nil {
					return usageError{err}
				}
				if !c.Flags().Changed("arch") {
					r.Architecture = r.OS.Architecture
				}
			}
			if err := checkDesktop(r.Architecture, r.CPUs, r.Memory, r.Network); err != nil {
				return usageError{err}
			}
			driver, err := desktop.Driver()
			if err != nil {
				return err
			}
			if err := r.Examine(c.Context()); err != nil {
				return err
			}
			m, err := store.Create(c.Context(), driver, r.Manifest, r.Disk)
			if err != nil {
				return err
			}
			if r.OS.Note != "" {
				env.note("%s", r.OS.Note)
			}
			return printDesktops(env, store, []*desktop.Manifest{m})
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&r.Medium, "iso", "", "the installation medium, an image of a CD-ROM")
	c.Flags().StringVar(&r.Disk, "disk", "", "an image of a disk, qcow2 or raw, that its disk is a copy of")
	c.Flags().StringVar(&os, "os", "", "what it is in the catalogue, see lumina desktop catalog")
	c.Flags().StringVar(&r.SHA256, "sha256", "", "its digest, from its vendor")
	c.Flags().StringVar(&r.Architecture, "arch", goruntime.GOARCH, "architecture of the VM: amd64 or arm64")
	c.Flags().Var(&memory, "memory", "memory of the VM (default 4GB)")
	c.Flags().IntVar(&r.CPUs, "cpus", desktop.DefaultCPUs, "processors of the VM")
	c.Flags().Var(&disk, "disk-size", "how much its disk may hold; only what is written takes room (default 64GB, or what --disk has)")
	c.Flags().StringVar(&network, "network", string(runtime.NetworkNAT), "what the VM can reach: nat, none, or allow=HOST[:PORT],…: see lumina run --help")
	c.Flags().BoolVar(&r.Force, "force", false, "take a medium that does not fit, or is not verified")
	return c
}

func checkDesktop(arch string, cpus int, memory int64, network runtime.NetworkMode) error {
	if arch != "amd64" && arch != "arm64" {
		return fmt.Errorf("--arch %q: want amd64 or arm64", arch)
	}
	if cpus < 1 {
		return fmt.Errorf("%d cpus: want 1 to %d", cpus, runtime.MaxCPUs)
	}
	if err := (runtime.VMOptions{CPUs: cpus, Memory: memory}).CheckSize(); err != nil {
		return err
	}
	return network.Check()
}
