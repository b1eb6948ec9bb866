package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

func newDoctorCommand(env *environment) *cobra.Command {
	var fix bool
	var isoFile string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run VMs, and how fast",
		Long:  "Check whether this host can run VMs, and how fast. The exit code is 0 when all is well, 1 when something could be better, 2 when VMs do not run.",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if isoFile != "" {
				return reportChecks(env, examineISO(isoFile))
			}
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			return reportChecks(env, examine(c.Context(), r, fix))
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "repair what can be repaired safely")
	c.Flags().StringVar(&isoFile, "iso", "", "check this installation ISO instead: whether it is whole, and boots here")
	return c
}

// reportChecks prints what was found; the worst of it is the exit code.
func reportChecks(env *environment, checks []vm.Check) error {
	if err := printChecks(env, checks); err != nil {
		return err
	}
	worst := 0
	for _, check := range checks {
		switch check.Status {
		case vm.CheckWarn:
			worst = max(worst, 1)
		case vm.CheckFail:
			worst = 2
		}
	}
	if worst > 0 {
		return exitCode(worst)
	}
	return nil
}

// examineISO checks an installation ISO, for a desktop.
func examineISO(path string) []vm.Check {
	f, err := iso.Open(path)
	if err != nil {
		return []vm.Check{{Name: "iso", Status: vm.CheckFail, Detail: err.Error()}}
	}
	defer f.Close()
	image, err := iso.ReadFile(f)
	if err != nil {
		return []vm.Check{{Name: "iso", Status: vm.CheckFail, Detail: err.Error(), Remedy: "get it again from its vendor"}}
	}
	var formats []string
	for _, f := range []struct {
		name string
		has  bool
	}{{"ISO 9660", true}, {"UDF", image.UDF}, {"El Torito", image.ElTorito}} {
		if f.has {
			formats = append(formats, f.name)
		}
	}
	checks := []vm.Check{{Name: "iso", Status: vm.CheckOK, Detail: fmt.Sprintf("%q, %s", image.Volume, strings.Join(formats, ", "))}}
	loader := vm.Check{Name: "loader", Status: vm.CheckOK}
	for _, l := range image.Loaders {
		loader.Detail += fmt.Sprintf("%s: %s in the %s; ", l.Arch, l.Path, l.Where)
	}
	loader.Detail = strings.TrimSuffix(loader.Detail, "; ")
	if err := image.Boots(goruntime.GOARCH); err != nil {
		loader.Status, loader.Detail = vm.CheckFail, strings.Replace(err.Error(), "the guest is", "this host is", 1)
		if len(image.Loaders) > 0 {
			loader.Status, loader.Remedy = vm.CheckWarn, "lumina desktop create --arch "+image.Loaders[0].Arch+" emulates it"
		}
	}
	checks = append(checks, loader)
	for _, l := range image.Loaders {
		if k, err := image.Kernel(l.Arch); err == nil {
			checks = append(checks, vm.Check{Name: "kernel", Status: vm.CheckOK, Detail: k.Path + " and " + k.InitrdPath + ", for lumina desktop boot --capture-serial"})
		}
	}
	return checks
}

func printChecks(env *environment, checks []vm.Check) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, map[string]any{"checks": checks})
	}
	for _, check := range checks {
		_ = printLine(env.stdout, "%-8s %-12s %s", check.Status, check.Name, check.Detail)
		if check.Remedy != "" {
			_ = printLine(env.stdout, "%-21s → %s", "", check.Remedy)
		}
	}
	return nil
}

func examine(ctx context.Context, r *runtime.Runtime, fix bool) []vm.Check {
	checks := examineDriver(ctx, r)
	checks = append(checks, examineMemory(), examineDisk(r.Home()), examineOwners(r.Home()), examineState(ctx, r, fix), examineTemplates(r))
	checks = append(checks, examineDesktops(r.Home())...)
	return append(checks, examineImages(ctx, r)...)
}

// examineDriver tries the accelerator with the kernel of an image, or with this
// program's where there is no image for this host.
func examineDriver(ctx context.Context, r *runtime.Runtime) []vm.Check {
	checker, ok := r.Driver.(vm.Checker)
	if !ok {
		return nil
	}
	spec := vm.Spec{Arch: goruntime.GOARCH}
	names, _ := r.Images.List()
	for _, name := range names {
		h, err := r.Images.Open(name)
		if err != nil {
			continue
		}
		defer h.Close()
		if h.Architecture != spec.Arch {
			continue
		}
		kernel, kernelErr := h.Open(image.Kernel)
		agent, agentErr := h.Open(image.Initramfs)
		if kernelErr == nil && agentErr == nil {
			defer kernel.Close()
			defer agent.Close()
			spec.Kernel, spec.Initramfs, spec.CommandLine = kernel, agent, h.Image.Kernel.CommandLine
			break
		}
	}
	if spec.Kernel == nil {
		// A program that was built without them tries no accelerator.
		if kernel, agent, err := ownBoot(spec.Arch); err == nil {
			defer kernel.Close()
			defer agent.Close()
			spec.Kernel, spec.Initramfs, spec.CommandLine = kernel, agent, kernelconfig.CommandLine(spec.Arch)
		}
	}
	return checker.Check(ctx, spec)
}

// ownBoot has the kernel and the initramfs of this program in files without a name.
func ownBoot(arch string) (kernel, agent *os.File, err error) {
	k, err := kernelOf("")(arch)
	if err != nil {
		return nil, nil, err
	}
	content, err := k.Open()
	if err != nil {
		return nil, nil, err
	}
	defer content.Close()
	cpio, err := initramfs.Read(arch)
	if err != nil {
		return nil, nil, err
	}
	if kernel, err = unnamed(content); err != nil {
		return nil, nil, err
	}
	if agent, err = unnamed(bytes.NewReader(cpio)); err != nil {
		kernel.Close()
	}
	return kernel, agent, err
}

// unnamed is a file without a name that has what is read.
func unnamed(r io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "lumina-*")
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func examineMemory() vm.Check {
	free, err := availableMemory()
	check := vm.Check{Name: "memory", Status: vm.CheckOK, Detail: formatSize(free) + " available"}
	switch {
	case err != nil:
		check.Status, check.Detail = vm.CheckWarn, err.Error()
	case free < runtime.DefaultMemory:
		check.Status, check.Remedy = vm.CheckWarn, "end other programs, or give VMs less with --memory"
	}
	return check
}

// lowDisk is how much room the state directory should have, in bytes.
const lowDisk = 5 << 30

func examineDisk(home string) vm.Check {
	check := vm.Check{Name: "disk", Status: vm.CheckOK}
	free, err := runtime.FreeSpace(home)
	if err != nil {
		check.Status, check.Detail = vm.CheckWarn, err.Error()
		return check
	}
	check.Detail = fmt.Sprintf("%s free for %s", formatSize(free), home)
	if free < lowDisk {
		check.Status, check.Remedy = vm.CheckWarn, "remove images, or set LUMINA_HOME to a larger disk"
	}
	return check
}

// examineOwners says who can write to the state directory.
func examineOwners(home string) vm.Check {
	if err := runtime.CheckOwners(home); err != nil {
		return vm.Check{Name: "owner", Status: vm.CheckWarn, Detail: err.Error()}
	}
	return vm.Check{Name: "owner", Status: vm.CheckOK, Detail: "only you can write to " + home}
}

// examineState finds what processes left that were killed.
func examineState(ctx context.Context, r *runtime.Runtime, fix bool) vm.Check {
	check := vm.Check{Name: "state", Status: vm.CheckOK, Detail: "nothing was left behind"}
	images := r.Images.Unfinished()
	stale := session.Stale(r.Home()) + images.Count
	if stale == 0 {
		return check
	}
	check.Status, check.Detail, check.Remedy = vm.CheckWarn, fmt.Sprintf("%d directories left by killed processes, %s of images among them", stale, formatSize(images.Bytes)), "lumina doctor --fix, or lumina clean"
	if !fix {
		return check
	}
	_, err := session.Clean(r.Home())
	if err == nil {
		_, err = r.Clean(ctx)
	}
	if err != nil {
		check.Detail = err.Error()
		return check
	}
	return vm.Check{Name: "state", Status: vm.CheckOK, Detail: fmt.Sprintf("%d directories left by killed processes: removed", stale)}
}

func examineTemplates(r *runtime.Runtime) vm.Check {
	check := vm.Check{Name: "templates", Status: vm.CheckOK}
	if _, ok := r.Driver.(vm.Snapshotter); !ok {
		check.Status, check.Detail = vm.CheckWarn, "this system's driver has none: every start is cold"
		return check
	}
	count, size, err := r.Templates.Usage()
	if err != nil {
		check.Status, check.Detail = vm.CheckWarn, err.Error()
		return check
	}
	check.Detail = plural(count, "template") + ", " + formatSize(size)
	if count == 0 {
		check.Detail = "none yet: the first start of each image is cold, several times slower"
	}
	for _, f := range r.Templates.Failures() {
		check.Status, check.Remedy = vm.CheckWarn, "remove the cause; then run lumina clean --templates, or wait an hour; the next start tries again"
		check.Detail += fmt.Sprintf("; one could not be made at %s: %s", f.At.Format(time.DateTime), f.Reason)
	}
	return check
}

// examineDesktops names the desktops that cannot be read.
func examineDesktops(home string) []vm.Check {
	damaged, err := desktop.NewStore(home).Damaged()
	if err != nil {
		return []vm.Check{{Name: "desktops", Status: vm.CheckWarn, Detail: err.Error()}}
	}
	var checks []vm.Check
	for _, d := range damaged {
		checks = append(checks, vm.Check{Name: "desktop", Status: vm.CheckWarn, Detail: fmt.Sprintf("%s: %v", d.ID, d.Err), Remedy: d.Remedy()})
	}
	return checks
}

func examineImages(ctx context.Context, r *runtime.Runtime) []vm.Check {
	names, err := r.Images.List()
	if err != nil {
		return []vm.Check{{Name: "images", Status: vm.CheckFail, Detail: err.Error()}}
	}
	if len(names) == 0 {
		return []vm.Check{{Name: "images", Status: vm.CheckWarn, Detail: "there are none", Remedy: "lumina images create NAME --from REF"}}
	}
	checks := []vm.Check{{Name: "images", Status: vm.CheckOK, Detail: fmt.Sprintf("%d", len(names))}}
	for _, name := range names {
		h, err := r.Images.Open(name)
		if err == nil {
			err = h.Verify(ctx)
			h.Close()
		}
		if err != nil {
			checks = append(checks, vm.Check{Name: "image", Status: vm.CheckWarn, Detail: err.Error(), Remedy: "make it again: lumina images create " + name + " --replace --from REF, or remove it: lumina images remove " + name})
		}
	}
	return checks
}
