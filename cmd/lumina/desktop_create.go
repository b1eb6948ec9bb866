package main

import (
	"cmp"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

func newDesktopCreateCommand(env *environment) *cobra.Command {
	var r desktop.Request
	var memory, disk byteSize
	var os, variant, name, reach string
	var isos []string
	var tpm, secureBoot bool
	c := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Create a desktop from an installation ISO or a disk",
		Long: "Create a desktop from an installation ISO or a disk. Without NAME, it is named after its --os-variant.\n" +
			"If the ISO's file name is in the catalogue, or --os or --os-variant names an entry, the ISO must have that entry's digest.",
		Example: "  lumina desktop create debian --iso debian.iso\n" +
			"  lumina desktop create --os-variant ubuntu-24.04 --iso ./ubuntu-24.04.4-desktop-amd64.iso\n" +
			"  lumina images export desktop --init systemd -o d.qcow2 && lumina desktop create mine --disk d.qcow2",
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := takeISOs(&r, isos); err != nil {
				return usageError{err}
			}
			if c.Flags().Changed("tpm") {
				r.WithTPM = &tpm
			}
			if c.Flags().Changed("secure-boot") {
				r.WithSecureBoot = &secureBoot
			}
			if r.ISO == "" && r.Disk == "" {
				return usageError{errors.New("the source is missing: give --iso with an installation ISO, or --disk with a disk image")}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			if r.Name, err = desktopName(args, name, variant, os); err != nil {
				return usageError{err}
			}
			r.Memory, r.DiskSize, r.Network = int64(memory), int64(disk), network.Mode(reach)
			if id := cmp.Or(os, variant); id != "" {
				r.OS, err = desktop.FindOS(id, r.Architecture)
				// A variant may be any; then nothing is known of it.
				if errors.Is(err, desktop.ErrNotInCatalog) && os == "" {
					r.Variant, err = variant, nil
				}
				if err != nil {
					return usageError{err}
				}
				if r.OS.ID != "" && !c.Flags().Changed("arch") {
					r.Architecture = r.OS.Architecture
				}
			}
			if err := checkDesktop(r.Architecture, r.CPUs, r.Memory, r.DiskSize, r.Network); err != nil {
				return usageError{err}
			}
			driver, err := env.desktopDriver()
			if err != nil {
				return err
			}
			if err := r.Examine(c.Context()); err != nil {
				if c.Context().Err() == nil {
					err = usageError{err}
				}
				return err
			}
			if err := r.Secure(driver); err != nil {
				return err
			}
			m, err := store.Create(c.Context(), driver, r.Manifest, r.Disk)
			if err != nil {
				return err
			}
			if r.OS.Note != "" && !(m.TPM && m.SecureBoot) {
				env.note("%s", r.OS.Note)
			}
			return printDesktops(c.Context(), env, store, []*desktop.Manifest{m})
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringArrayVar(&isos, "iso", nil, "the installation ISO; a second --iso is the same as --drivers")
	c.Flags().StringVar(&r.Drivers, "drivers", "", "a second ISO, for example virtio drivers for Windows")
	c.Flags().StringVar(&r.Disk, "disk", "", "disk image (qcow2 or raw) to copy as its disk")
	c.Flags().StringVar(&name, "name", "", "its name, instead of NAME")
	c.Flags().StringVar(&os, "os", "", "operating system, an entry of lumina desktop catalog")
	c.Flags().StringVar(&variant, "os-variant", "", "operating system, such as ubuntu-24.04; the catalogue's entry for the guest's architecture")
	c.Flags().StringVar(&r.SHA256, "sha256", "", "SHA-256 digest of the ISO, from its vendor")
	c.Flags().StringVar(&r.Architecture, "arch", goruntime.GOARCH, "architecture of the VM: amd64 or arm64")
	c.Flags().Var(&memory, "memory", "memory of the VM (default 4GB)")
	c.Flags().IntVar(&r.CPUs, "cpus", desktop.DefaultCPUs, "CPUs of the VM")
	c.Flags().Var(&disk, "disk-size", "capacity of its disk; only written data takes space on the host (default 64GB, or the size of --disk)")
	c.Flags().StringVar(&reach, "network", string(network.ModeNAT), "what the VM can reach: nat, none, or allow=HOST[:PORT],…: see lumina run --help")
	c.Flags().BoolVar(&tpm, "tpm", false, "give it a TPM 2.0 (swtpm; default for Windows 11)")
	c.Flags().BoolVar(&secureBoot, "secure-boot", false, "let its firmware start only software signed with Microsoft's keys, as PCs do (default for Windows 11)")
	c.Flags().BoolVar(&r.Force, "force", false, "use an ISO that does not fit this VM or is not verified")
	return c
}

// takeISOs takes the ISOs of --iso: the first is the installation's.
func takeISOs(r *desktop.Request, isos []string) error {
	for i, iso := range isos {
		switch {
		case iso == "":
			return errors.New("--iso: want the name of a file")
		case i == 0:
			r.ISO = iso
		case i == 1 && r.Drivers == "":
			r.Drivers = iso
		default:
			return fmt.Errorf("--iso %q: at most two ISOs are possible, including --drivers", iso)
		}
	}
	return nil
}

// desktopName is what a desktop is to be called.
func desktopName(args []string, flag, variant, os string) (string, error) {
	if len(args) > 0 && flag != "" {
		return "", errors.New("two names are given: use either NAME or --name")
	}
	name := cmp.Or(strings.Join(args, ""), flag, variant, os)
	if name == "" {
		return "", errors.New("the name is missing: give NAME, --name or --os-variant")
	}
	return name, desktop.CheckName(name)
}

func checkDesktop(arch string, cpus int, memory, disk int64, mode network.Mode) error {
	if arch != "amd64" && arch != "arm64" {
		return fmt.Errorf("--arch %q: want amd64 or arm64", arch)
	}
	if cpus < 1 {
		return fmt.Errorf("%d cpus: want 1 to %d", cpus, runtime.MaxCPUs)
	}
	if err := (runtime.VMOptions{CPUs: cpus, Memory: memory}).CheckSize(); err != nil {
		return err
	}
	if disk != 0 {
		if err := desktop.CheckDiskSize(disk); err != nil {
			return err
		}
	}
	return mode.Check()
}
