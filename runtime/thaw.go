package runtime

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// noTemplate is the reason of a cold boot that making a template would mend.
const noTemplate = "there is no template yet"

// thaw starts v from a template. It says why not when it cannot; v is then as
// it was.
func (r *Runtime) thaw(ctx context.Context, v *VM, p *plan) (ok bool, reason string) {
	if v.options.NoTemplate {
		return false, "templates are switched off"
	}
	if v.options.Member != nil {
		return false, "a VM of a network of VMs is not thawed"
	}
	if len(v.options.Volumes) > 0 {
		return false, "a VM with volumes cannot be thawed"
	}
	if v.options.Init == image.InitSystemd {
		return false, "systemd keeps the names it booted with: a VM of it is not thawed"
	}
	driver, ok := r.Driver.(vm.Snapshotter)
	if !ok {
		return false, "the driver has no templates"
	}
	key, err := r.templateKey(ctx, driver, v.image.Image, v.options, p.spec)
	if err != nil {
		return false, err.Error()
	}
	files, err := r.Templates.Open(key)
	if errors.Is(err, template.ErrNone) {
		v.trace.mark("looked for a template")
		if err != template.ErrNone {
			return false, err.Error()
		}
		if f, failed := r.Templates.Failed(key); failed {
			return false, fmt.Sprintf("there is no template: %s (lumina clean --templates has the next start try again)", f.Reason)
		}
		if err := checkSpace(r.home, v.options.DiskReserve, templateRoom); err != nil {
			return false, "there is no room for a template"
		}
		return false, noTemplate
	}
	if err != nil {
		return false, err.Error()
	}
	defer files.Close()
	if err := r.restore(ctx, driver, v, p, files); err != nil {
		if ctx.Err() != nil {
			return false, "the start was given up"
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return false, err.Error()
		}
		// It may be the template's fault: another one is made, later.
		err = fmt.Errorf("it did not start: %w", err)
		return false, errors.Join(err, r.Templates.Remove(key), r.Templates.Fail(key, err)).Error()
	}
	return true, ""
}

func (r *Runtime) restore(ctx context.Context, driver vm.Snapshotter, v *VM, p *plan, files *template.Files) error {
	scratch, err := r.unnamed()
	if err != nil {
		return err
	}
	defer r.release(scratch)
	if err := template.CopySparse(scratch, files.Scratch); err != nil {
		return fmt.Errorf("copying the template's disk: %w", err)
	}
	if err := ext4.Reserve(scratch, v.options.DiskSize); err != nil {
		return err
	}
	v.trace.mark("prepared")
	spec, err := p.with(scratch)
	if err != nil {
		return err
	}
	if v.machine, err = driver.Restore(ctx, spec, vm.Snapshot{Memory: files.Memory, State: files.State}); err != nil {
		return err
	}
	v.trace.mark("started")
	if err := v.configure(ctx, p.configure); err != nil {
		return fmt.Errorf("thawing the template: %w", err)
	}
	return nil
}

// templateKey names the template of an image and a machine's shape.
func (r *Runtime) templateKey(ctx context.Context, driver vm.Snapshotter, img *image.Image, o VMOptions, spec vm.Spec) (string, error) {
	fingerprint, err := driver.Fingerprint(ctx, spec)
	if err != nil {
		return "", err
	}
	return template.Key(fingerprint, protocol.Version, img.Architecture, img.Files, spec.CommandLine, o.CPUs, o.Memory, o.DiskSize, spec.Network != nil, o.Nested)
}

// WantsTemplate says whether MakeTemplate would make the next start of such a
// VM faster.
func (t Trace) WantsTemplate() bool { return t.Cold == noTemplate }

// MakeTemplate freezes a VM of its own for later starts with the same options
// to go on from. It does nothing when there is one, or one is being made.
func (r *Runtime) MakeTemplate(ctx context.Context, options VMOptions) error {
	driver, ok := r.Driver.(vm.Snapshotter)
	if !ok {
		return fmt.Errorf("making a template: %w", vm.ErrUnsupported)
	}
	img, err := r.Images.Open(options.Image)
	if err != nil {
		return err
	}
	defer img.Close()
	options = options.withDefaults(img.Image)
	if options.Init == image.InitSystemd {
		return fmt.Errorf("making a template of a VM with systemd: %w", vm.ErrUnsupported)
	}
	if err := checkSpace(r.home, options.DiskReserve, templateRoom); err != nil {
		return fmt.Errorf("making a template of image %q: %w", options.Image, err)
	}
	p, err := r.plan(img, options)
	if err != nil {
		return err
	}
	defer p.close()
	key, err := r.templateKey(ctx, driver, img.Image, options, p.spec)
	if err != nil {
		return err
	}
	// What is needed of the image is open: nobody who removes it waits for this.
	img.Close()
	err = r.Templates.Make(ctx, key, func(files *template.Files) error {
		return r.freeze(ctx, driver, p, options, files)
	})
	if err != nil {
		return fmt.Errorf("making a template of image %q: %w", options.Image, err)
	}
	return nil
}

func (r *Runtime) freeze(ctx context.Context, driver vm.Snapshotter, p *plan, options VMOptions, files *template.Files) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errors.New("the guest was not ready in time"))
	defer cancel()
	if err := files.Memory.Truncate(options.Memory); err != nil {
		return err
	}
	if err := formatScratch(files.Scratch, options.DiskSize); err != nil {
		return err
	}
	p.configure.Template = true
	spec, err := p.with(files.Scratch)
	if err != nil {
		return err
	}
	snapshot := vm.Snapshot{Memory: files.Memory, State: files.State}
	return driver.Save(ctx, spec, snapshot, func(ctx context.Context, m vm.Machine) error {
		return warmUp(ctx, m, p.configure)
	})
}

// warmUp brings a guest to where a thawed one begins: configured, its shell in
// memory, and silent.
func warmUp(ctx context.Context, m vm.Machine, c *protocol.Configure) error {
	conn, err := m.Dial(ctx)
	if err != nil {
		return err
	}
	if _, err := agent.Configure(ctx, conn, c); err != nil {
		return errors.Join(err, m.Err())
	}
	if conn, err = m.Dial(ctx); err != nil {
		return err
	}
	// Not every image has a shell.
	var none *protocol.Error
	if _, err := agent.Exec(ctx, conn, &protocol.Exec{Args: []string{":"}, Shell: true}, agent.Stdio{}, agent.Control{}); err != nil && !errors.As(err, &none) {
		return err
	}
	if conn, err = m.Dial(ctx); err != nil {
		return err
	}
	return agent.Freeze(ctx, conn)
}
