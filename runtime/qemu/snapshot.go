package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

var _ vm.Snapshotter = (*Driver)(nil)

// memory is the file that holds a machine's memory.
type memory struct {
	file *os.File
	// shared: the machine writes to the file. Otherwise it has the file's
	// content and keeps what it writes to itself.
	shared bool
	// state is what the machine goes on from; nil when it boots.
	state *os.File
}

// Fingerprint is part of [vm.Snapshotter].
func (d *Driver) Fingerprint(ctx context.Context, spec vm.Spec) (string, error) {
	path, err := find(spec.Arch)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	verdict, err := d.Probe(ctx, spec)
	if err != nil {
		return "", err
	}
	// Another version of this program may make another machine.
	id := []any{"qemu", path, info.Size(), info.ModTime().UnixNano(), verdict.Accelerator, machines[spec.Arch]}
	if verdict.Accelerator != TCG {
		// The guest has seen this CPU.
		b, err := os.ReadFile("/proc/cpuinfo")
		if err != nil {
			return "", fmt.Errorf("%w: the host's CPU is not known: %w", vm.ErrUnsupported, err)
		}
		model, _, _ := strings.Cut(string(b), "cpu MHz")
		id = append(id, model)
	}
	return fmt.Sprintln(id...), nil
}

// restoredFrom is beyond the numbers of all streams that a template's maker opens.
const restoredFrom = 1 << 16

// Save is part of [vm.Snapshotter].
func (d *Driver) Save(ctx context.Context, spec vm.Spec, s vm.Snapshot, prepare func(context.Context, vm.Machine) error) error {
	verdict, err := d.Probe(ctx, spec)
	if err != nil {
		return err
	}
	if err := giveMemory(s.Memory); err != nil {
		return fmt.Errorf("making the memory's file QEMU's: %w", err)
	}
	line, err := newCommand(machines[spec.Arch], verdict, spec, &memory{file: s.Memory, shared: true})
	if err != nil {
		return err
	}
	p := newProcess(line, spec.ConsoleTail)
	if err := p.launch(ctx, spec.Arch, line, d.controlGroup()); err != nil {
		return err
	}
	defer func() {
		p.Kill()
		<-p.done
	}()
	m, err := openMonitor(p.control)
	if err != nil {
		return p.silent(err)
	}
	p.follow(m)
	p.checkState(m)
	if err := p.greet(); err != nil {
		return err
	}
	if err := prepare(ctx, p); err != nil {
		return err
	}
	return p.save(ctx, m, s.State)
}

// Restore is part of [vm.Snapshotter].
func (d *Driver) Restore(ctx context.Context, spec vm.Spec, s vm.Snapshot) (vm.Machine, error) {
	verdict, err := d.Probe(ctx, spec)
	if err != nil {
		return nil, err
	}
	line, err := newCommand(machines[spec.Arch], verdict, spec, &memory{file: s.Memory, state: s.State})
	if err != nil {
		return nil, err
	}
	p := newProcess(line, spec.ConsoleTail)
	close(p.greeted) // when the snapshot was made
	if err := p.launch(ctx, spec.Arch, line, d.controlGroup()); err != nil {
		return nil, err
	}
	// To the guest, which was not asked, this is the connection that it had.
	p.agent = mux.ClientFrom(p.port, restoredFrom)
	stop := context.AfterFunc(ctx, func() { p.control.Close() })
	defer stop()
	m, err := openMonitor(p.control)
	if err != nil {
		return nil, p.silent(err)
	}
	p.follow(m)
	if err := load(m, s.State); err != nil {
		p.Kill()
		<-p.done
		return nil, errors.Join(err, p.err)
	}
	return p, nil
}

// silent is the error of a QEMU that says nothing on its monitor, which ended by
// itself most likely: how says more.
func (p *process) silent(err error) error {
	close(p.followed)
	p.cancel()
	<-p.done
	if errors.Is(err, io.EOF) && p.err != vm.ErrEnded {
		return p.err
	}
	return err
}
