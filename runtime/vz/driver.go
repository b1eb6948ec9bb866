package vz

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Driver starts machines.
type Driver struct {
	framework framework
	// cacheDir keeps what was found out about this host: whether it restores
	// machines.
	cacheDir string
}

var (
	_ vm.Driver      = (*Driver)(nil)
	_ vm.NamedDisks  = (*Driver)(nil)
	_ vm.Snapshotter = (*Driver)(nil)
	_ vm.Checker     = (*Driver)(nil)
	_ vm.Sharer      = (*Driver)(nil)
)

// SharesDirectories is part of [vm.Sharer]: the framework has virtiofs.
func (*Driver) SharesDirectories() {}

// NamesDisks is part of [vm.NamedDisks]: the framework opens disks by name.
func (*Driver) NamesDisks() bool { return true }

// Start is part of [vm.Driver].
func (d *Driver) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	identifier, err := d.framework.newIdentifier()
	if err != nil {
		return nil, fmt.Errorf("making the machine's identifier: %w", err)
	}
	m, err := d.define(ctx, spec, identifier)
	if err != nil {
		return nil, err
	}
	if err := m.boot(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// path is the name by which the framework opens a file: one that has none any more,
// or whose name is another file's, is refused.
func (d *Driver) path(f *os.File) (string, error) {
	name, err := d.framework.path(f)
	if err != nil {
		return "", err
	}
	opened, err := f.Stat()
	if err != nil {
		return "", err
	}
	if named, err := os.Stat(name); err != nil || !os.SameFile(opened, named) {
		return "", fmt.Errorf("file %q was removed or replaced since it was opened, and the framework opens it by its name: try again", name)
	}
	return name, nil
}

// checkHost looks whether this macOS is new enough, and this Mac of the architecture.
func (d *Driver) checkHost(arch string) error {
	release, err := d.framework.release()
	if err != nil {
		return fmt.Errorf("reading the release of macOS: %w", err)
	}
	if host := d.framework.arch(); arch != host {
		return fmt.Errorf("%w: the guest is %s and this Mac is %s; the framework does not emulate", vm.ErrUnsupported, arch, host)
	}
	return checkMacOS(release)
}

// lockPatience is how long the disks of a machine that has just ended may stay
// locked, and lockPause is how long to wait before the next try: the framework
// does not tell when it lets go.
const (
	lockPatience = 5 * time.Second
	lockPause    = 100 * time.Millisecond
)

// define lays out a machine that has an agent and makes it, stopped.
func (d *Driver) define(ctx context.Context, spec vm.Spec, identifier []byte) (*machine, error) {
	return d.defineWith(ctx, spec, identifier, newFirstBoot(false), func(*configuration) {})
}

func (d *Driver) defineWith(ctx context.Context, spec vm.Spec, identifier []byte, b *firstBoot, change func(*configuration)) (*machine, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := d.checkHost(spec.Arch); err != nil {
		return nil, err
	}
	if err := errors.Join(checkSpec(spec), d.checkSize(spec.CPUs, spec.Memory)); err != nil {
		return nil, err
	}
	m := newMachine(spec.ConsoleTail)
	config, err := d.configure(m, spec, identifier, b)
	if err != nil {
		m.closeFiles()
		return nil, err
	}
	change(config)
	if err := d.make(ctx, m, func() (virtualMachine, error) { return d.framework.newMachine(config) }); err != nil {
		return nil, err
	}
	return m, nil
}

// checkSize compares a machine with the largest of this Mac.
func (d *Driver) checkSize(cpus int, memory int64) error {
	mostCPUs, mostMemory := d.framework.limits()
	if cpus > mostCPUs {
		return fmt.Errorf("%w: %d CPUs for one VM, of which this Mac gives at most %d", vm.ErrUnsupported, cpus, mostCPUs)
	}
	if memory > mostMemory {
		return fmt.Errorf("%w: %d MB of memory for one VM, of which this Mac gives at most %d", vm.ErrUnsupported, memory>>20, mostMemory>>20)
	}
	return nil
}

// make makes a machine of the framework's, stopped, and tells m how to make another.
func (d *Driver) make(ctx context.Context, m *machine, with func() (virtualMachine, error)) error {
	m.make, m.begin = with, d.framework.activity
	if err := whileLocked(ctx, func() (err error) {
		m.vm, err = with()
		return err
	}); err != nil {
		m.closeFiles()
		return d.explain(err)
	}
	return nil
}

// explain finds the likely reason why the framework refuses every machine.
func (d *Driver) explain(err error) error {
	if text, unsigned := d.framework.signature(); !errors.Is(err, errLocked) && (unsigned != nil || !entitled(text)) {
		return fmt.Errorf("this program is not signed with the entitlement %s; %s: %w", entitlement, signRemedy, err)
	}
	return err
}

// whileLocked tries again while a disk is still held by a machine that has ended.
func whileLocked(ctx context.Context, try func() error) error {
	patience := time.NewTimer(lockPatience)
	defer patience.Stop()
	for {
		err := try()
		if !errors.Is(err, errLocked) {
			return err
		}
		select {
		case <-time.After(lockPause):
		case <-patience.C:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// configure translates a spec. m owns the files that must outlive the call.
func (d *Driver) configure(m *machine, spec vm.Spec, identifier []byte, b *firstBoot) (*configuration, error) {
	c := &configuration{commandLine: commandLine(spec), cpus: spec.CPUs, memory: spec.Memory, identifier: identifier, entropy: true}
	var err error
	if c.kernel, err = d.path(spec.Kernel); err != nil {
		return nil, err
	}
	if c.initramfs, err = d.path(spec.Initramfs); err != nil {
		return nil, err
	}
	for _, s := range spec.Disks {
		path, err := d.path(s.File)
		if err != nil {
			return nil, fmt.Errorf("disk %q: %w", s.Serial, err)
		}
		if s.Lock != nil {
			if _, err := m.keep(s.Lock); err != nil {
				return nil, fmt.Errorf("disk %q: %w", s.Serial, err)
			}
		}
		c.disks = append(c.disks, disk{path: path, serial: s.Serial, readOnly: s.ReadOnly, sync: !s.Ephemeral && !s.ReadOnly})
	}
	if spec.Rosetta {
		if err := d.framework.rosetta(); err != nil {
			return nil, fmt.Errorf("setting up Rosetta: %w", err)
		}
		c.rosetta = true
		c.commandLine += " " + protocol.ParamRosetta.Is(rosettaTag)
	}
	for _, s := range spec.Shares {
		// Below /tmp and /var, which are links on a Mac, too.
		dir, err := filepath.EvalSymlinks(s.Dir)
		if err != nil {
			return nil, fmt.Errorf("sharing a directory: %w", err)
		}
		c.shares = append(c.shares, share{tag: s.Tag, dir: dir, readOnly: s.ReadOnly})
	}
	if spec.Network != nil {
		if c.nic, err = m.addNIC(spec.Network); err != nil {
			return nil, fmt.Errorf("the NIC: %w", err)
		}
	}
	if c.console, err = m.addConsole(m.console, m.watchBoot(b)); err != nil {
		return nil, fmt.Errorf("the console: %w", err)
	}
	return c, nil
}

// commandLine is the kernel's: the console is a virtio one, the agent is reached
// by vsock.
func commandLine(spec vm.Spec) string {
	return spec.CommandLine + consoleParameters + " console=hvc0 " + protocol.ParamTransport.Is(protocol.TransportVsock)
}
