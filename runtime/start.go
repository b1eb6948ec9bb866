package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// bootTimeout bounds a boot that neither succeeds nor ends. A crashed boot is
// seen at once; this is for one that hangs.
const bootTimeout = 60 * time.Second

// systemdTimeout bounds a boot with systemd, whose agent answers when systemd is
// up, or after 90 s without.
const systemdTimeout = 3 * time.Minute

// volumesTimeout bounds a boot with volumes: a new one may take gigabytes of the image's.
const volumesTimeout = 5 * time.Minute

// Start restores or boots a VM and returns when its agent has answered. The VM
// ends with ctx, or with Close.
func (r *Runtime) Start(ctx context.Context, options VMOptions) (*VM, error) {
	v, _, err := r.startNamed(ctx, options, nil, false)
	return v, err
}

// startNamed starts a VM of an image of the store in which command, unless nil,
// can run. With along, the command is sent along with the VM's configuration.
func (r *Runtime) startNamed(ctx context.Context, options VMOptions, command *Command, along bool) (*VM, *sentCommand, error) {
	img, err := r.Images.Open(options.Image)
	if err != nil {
		return nil, nil, &Error{Kind: ConnectionFailed, Err: err}
	}
	if command != nil {
		if err := command.Check(img.Config); err != nil {
			img.Close()
			return nil, nil, &Error{Kind: ConnectionFailed, Err: err}
		}
	}
	if !along {
		command = nil
	}
	v, sent, err := r.start(ctx, img, options, command)
	if err != nil && ctx.Err() != nil {
		return nil, nil, context.Cause(ctx) // and not what that broke
	}
	if err != nil {
		return nil, nil, kindOf(ConnectionFailed, fmt.Errorf("starting a VM of image %q: %w", options.Image, err))
	}
	return v, sent, nil
}

// start starts a VM of an image that is open: it restores it or, where that cannot
// be, boots it. command, unless nil, is sent along with the configuration. The VM
// takes the image over, which is closed when the start fails.
func (r *Runtime) start(ctx context.Context, img *image.Handle, options VMOptions, command *Command) (*VM, *sentCommand, error) {
	s, err := r.prepare(img, options)
	if err != nil {
		img.Close()
		return nil, nil, err
	}
	defer s.plan.close()
	v, sent, err := s.try(ctx, s.restore, command)
	if err != nil && ctx.Err() == nil {
		s.trace.Cold = s.cold(err)
		v, sent, err = s.try(ctx, s.boot, command)
	}
	if errors.Is(err, vm.ErrEarlyReset) && ctx.Err() == nil {
		// Nothing of the command or the volumes was touched. It is seen where the host's
		// KVM is emulated itself, once in some hundred starts.
		s.trace.mark(err.Error() + ": booted once more")
		v, sent, err = s.try(ctx, s.boot, command)
	}
	if err != nil {
		img.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
	v.trace = s.trace
	v.network, s.plan.network = s.plan.network, nil
	return v, sent, nil
}

// start is a VM that is about to run.
type start struct {
	r       *Runtime
	image   *image.Handle
	options VMOptions
	plan    *plan
	trace   Trace
	key     string // of the template that it is restored from; "" for none
}

func (r *Runtime) prepare(img *image.Handle, options VMOptions) (*start, error) {
	options = options.withDefaults(img.Image)
	s := &start{r: r, image: img, options: options, trace: Trace{start: time.Now()}}
	err := CheckSpace(r.home, options.DiskReserve)
	if err != nil {
		closeDisks(options.disks)
		return nil, err
	}
	s.plan, err = r.plan(img, options)
	return s, err
}

// try launches a VM, sends the command along with its configuration, and waits for
// its agent. It ends when the agent has answered, the VM has ended, ctx has, or it
// takes too long; in all but the first case the VM has ended.
func (s *start) try(ctx context.Context, launch func(context.Context) (vm.Machine, error), command *Command) (*VM, *sentCommand, error) {
	machine, err := launch(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.trace.mark("started")
	v := newVM(s.image, s.options, machine)
	v.room = s.r.newRoom(s.options.DiskReserve)
	if err := v.awaitRoot(ctx, s.options.whole); err != nil {
		v.end()
		return nil, nil, err
	}
	limited, cancel := s.limit(ctx)
	defer cancel()
	conn, err := v.dial(limited) // the first stream is the configuration's
	if err == nil {
		err = v.serveShares(limited, s.plan.shares)
	}
	if err != nil {
		v.end()
		return nil, nil, err
	}
	sent := v.send(ctx, command)
	reply, err := client.Configure(limited, conn, s.plan.configure)
	if err != nil {
		err = v.ended(ConnectionFailed, err)
		v.end()
		_, _ = sent.wait() // it failed with the VM
		return nil, nil, err
	}
	close(v.ready)
	go v.keepTime()
	go v.keepRoom()
	s.trace.booted(reply.Marks)
	return v, sent, nil
}

// errNoAnswer is wrapped when a guest that was started says nothing for too long.
var errNoAnswer = errors.New("the agent did not answer")

// limit is ctx that ends when the agent takes too long to answer.
func (s *start) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := bootTimeout
	if s.options.Init == image.InitSystemd {
		limit = systemdTimeout
	}
	if slices.ContainsFunc(s.options.Volumes, func(v Volume) bool { return v.Name != "" }) {
		limit = volumesTimeout
	}
	if s.options.BootTimeout > 0 {
		limit = s.options.BootTimeout
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v: its kernel or init hangs, or this host is too busy; --boot-timeout 5m or LUMINA_BOOT_TIMEOUT=5m waits longer", errNoAnswer, limit))
}

// boot launches the machine cold.
func (s *start) boot(ctx context.Context) (vm.Machine, error) {
	scratch, err := s.r.makeScratch(s.options.DiskSize)
	if err != nil {
		return nil, err
	}
	defer s.r.release(scratch)
	s.trace.mark("prepared")
	spec, err := s.plan.with(scratch)
	if err != nil {
		return nil, err
	}
	return s.r.Driver.Start(ctx, spec)
}

// restore launches the machine from its template. Its error is a [Cold] when there
// is none to try.
func (s *start) restore(ctx context.Context) (vm.Machine, error) {
	driver, files, err := s.openTemplate(ctx)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	scratch, err := s.r.unnamed()
	if err != nil {
		return nil, err
	}
	defer s.r.release(scratch)
	if err := template.CopySparse(scratch, files.Scratch); err != nil {
		return nil, fmt.Errorf("copying the template's disk: %w", err)
	}
	if err := ext4.Reserve(scratch, s.options.DiskSize); err != nil {
		return nil, err
	}
	s.trace.mark("prepared")
	spec, err := s.plan.with(scratch)
	if err != nil {
		return nil, err
	}
	return driver.Restore(ctx, spec, vm.Snapshot{Memory: files.Memory, State: files.State})
}

// openTemplate opens the template to restore from, or says as a [Cold] why there is
// none.
func (s *start) openTemplate(ctx context.Context) (vm.Snapshotter, *template.Files, error) {
	driver, ok := s.r.Driver.(vm.Snapshotter)
	switch {
	case s.options.NoTemplate:
		return nil, nil, Cold{Reason: ColdOff}
	case s.options.Member != nil:
		return nil, nil, Cold{Reason: ColdMember}
	case len(s.options.Volumes) > len(s.plan.shares):
		return nil, nil, Cold{Reason: ColdVolumes} // devices
	case s.options.Init == image.InitSystemd:
		return nil, nil, Cold{Reason: ColdSystemd}
	case !ok:
		return nil, nil, Cold{Reason: ColdDriver}
	}
	key, err := templateKey(ctx, driver, s.image.Image, s.options, s.plan.spec)
	if err != nil {
		return nil, nil, Cold{ColdDriver, err.Error()}
	}
	files, err := s.r.Templates.Open(key)
	switch {
	case err == nil:
		s.key = key
		return driver, files, nil
	case errors.Is(err, template.ErrNone):
		s.trace.mark("looked for a template")
		return nil, nil, s.r.missing(key, s.options)
	default:
		return nil, nil, Cold{ColdModified, err.Error()}
	}
}

// missing is why a template was not made.
func (r *Runtime) missing(key string, options VMOptions) Cold {
	if f, failed := r.Templates.Failed(key); failed {
		return Cold{ColdNotMade, f.Reason + " (lumina clean --templates has the next start try again)"}
	}
	if checkSpace(r.home, options.DiskReserve, templateRoom) != nil {
		return Cold{Reason: ColdNoRoom}
	}
	return Cold{Reason: ColdNoTemplate}
}

// cold is why a VM boots after restoring it failed. A template whose fault it may
// be is discarded, for another one to be made later.
func (s *start) cold(err error) Cold {
	var cold Cold
	switch {
	case errors.As(err, &cold):
		return cold
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Cold{ColdNoRoom, err.Error()}
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EAGAIN): // or processes
		return Cold{ColdNoMemory, err.Error()}
	}
	failed := fmt.Errorf("it did not start: %w", err)
	return Cold{ColdFailed, errors.Join(err, s.r.Templates.Remove(s.key), s.r.Templates.Fail(s.key, failed)).Error()}
}
