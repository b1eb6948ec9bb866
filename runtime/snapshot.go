package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// templateKey names the template of an image and a machine's shape.
func templateKey(ctx context.Context, driver vm.Snapshotter, img *image.Image, o VMOptions, spec vm.Spec) (string, error) {
	fingerprint, err := driver.Fingerprint(ctx, spec)
	if err != nil {
		return "", err
	}
	return template.Key(fingerprint, protocol.Version, img.Architecture, img.Files, spec.CommandLine, o.CPUs, o.Memory, o.DiskSize, spec.Network != nil, o.Nested)
}

// MakeTemplate boots a VM of its own and keeps a snapshot of it, from which later
// starts with the same options are restored. It does nothing when there is one, or
// one is being made.
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
	options.Volumes = nil // a VM with directories of the host's is restored from the same one as without
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
	key, err := templateKey(ctx, driver, img.Image, options, p.spec)
	if err != nil {
		return err
	}
	// What is needed of the image is open: nobody who removes it waits for this.
	img.Close()
	m := &maker{driver: driver, plan: p, options: options}
	if err := r.Templates.Make(ctx, key, func(files *template.Files) error {
		err := m.fill(ctx, files)
		if errors.Is(err, vm.ErrEarlyReset) {
			err = m.fill(ctx, files) // as a start does
		}
		return err
	}); err != nil {
		return fmt.Errorf("making a template of image %q: %w", options.Image, err)
	}
	return nil
}

// maker makes a template.
type maker struct {
	driver  vm.Snapshotter
	plan    *plan
	options VMOptions
}

// fill boots the VM and writes its snapshot to the template's files.
func (m *maker) fill(ctx context.Context, files *template.Files) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(m.options.BootTimeout, bootTimeout), errors.New("the guest was not ready in time"))
	defer cancel()
	// Whatever a machine before it has left there.
	if err := errors.Join(files.Memory.Truncate(0), files.Memory.Truncate(m.options.Memory)); err != nil {
		return err
	}
	if err := formatScratch(files.Scratch, m.options.DiskSize); err != nil {
		return err
	}
	m.plan.configure.Template = true
	spec, err := m.plan.with(files.Scratch)
	if err != nil {
		return err
	}
	return m.driver.Save(ctx, spec, vm.Snapshot{Memory: files.Memory, State: files.State}, m.warmUp)
}

// warmUp brings a guest to where a restored one begins: configured, its shell in
// memory, and silent.
func (m *maker) warmUp(ctx context.Context, machine vm.Machine) error {
	conn, err := machine.Dial(ctx)
	if err == nil {
		_, err = client.Configure(ctx, conn, m.plan.configure)
	}
	if err != nil {
		// Its end tells more than the broken connection.
		grace := time.NewTimer(crashGrace)
		defer grace.Stop()
		select {
		case <-machine.Done():
		case <-grace.C:
		}
		return errors.Join(err, machine.Err())
	}
	if conn, err = machine.Dial(ctx); err != nil {
		return err
	}
	// Not every image has a shell.
	var none *protocol.Error
	if _, err := client.Exec(ctx, conn, &protocol.Exec{Args: []string{":"}, Shell: true}, client.Stdio{}, client.Control{}); err != nil && !errors.As(err, &none) {
		return err
	}
	if conn, err = machine.Dial(ctx); err != nil {
		return err
	}
	return client.PrepareSnapshot(ctx, conn)
}
