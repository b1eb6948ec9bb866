package vz

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// savedMAC is the NIC's address in a machine that is saved, and so in each that is
// restored: the framework restores a machine into one of the same configuration
// only. The guest gives its interface another.
var savedMAC = net.HardwareAddr{2, 'l', 'u', 'm', 'i', 'n'}

func saved(spec vm.Spec) vm.Spec {
	if spec.Network != nil {
		n := *spec.Network
		n.MAC = savedMAC
		spec.Network = &n
	}
	return spec
}

// Fingerprint is part of [vm.Snapshotter]. Not every Mac and macOS restores what
// it has saved: where that failed once, it is not tried again.
func (d *Driver) Fingerprint(_ context.Context, spec vm.Spec) (string, error) {
	if len(spec.Shares) > 0 || spec.Rosetta {
		return "", fmt.Errorf("%w: the framework does not save machines with shared directories", vm.ErrUnsupported)
	}
	build, err := d.framework.build()
	if err != nil {
		return "", err
	}
	if why, err := os.ReadFile(d.failurePath(build)); err == nil {
		return "", fmt.Errorf("%w: this Mac and macOS did not restore a VM (%s); to try again, remove %s", vm.ErrUnsupported, why, d.failurePath(build))
	}
	return fmt.Sprintln("vz", build), nil
}

func (d *Driver) failurePath(build string) string {
	sum := sha256.Sum256([]byte(build))
	return filepath.Join(d.cacheDir, "vz-no-restore-"+hex.EncodeToString(sum[:8]))
}

// Save is part of [vm.Snapshotter]. The framework's file has the memory, too: in
// that of the memory is the machine's identifier, which belongs to its
// configuration. A snapshot is one only if it was restored once.
func (d *Driver) Save(ctx context.Context, spec vm.Spec, s vm.Snapshot, prepare func(context.Context, vm.Machine) error) error {
	spec = saved(spec)
	identifier, err := d.framework.newIdentifier()
	if err != nil {
		return fmt.Errorf("making the machine's identifier: %w", err)
	}
	if err := d.save(ctx, spec, s, identifier, prepare); err != nil {
		return err
	}
	if _, err := s.Memory.WriteAt(append(binary.BigEndian.AppendUint32(nil, uint32(len(identifier))), identifier...), 0); err != nil {
		return err
	}
	if err := d.tryRestore(ctx, spec, s); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		build, buildErr := d.framework.build()
		if buildErr == nil {
			buildErr = cmp.Or(os.MkdirAll(d.cacheDir, 0o700), durable.Replace(d.failurePath(build), []byte(err.Error()), 0o600))
		}
		return errors.Join(fmt.Errorf("%w: trying what was saved: %w", vm.ErrUnsupported, err), buildErr)
	}
	return nil
}

func (d *Driver) save(ctx context.Context, spec vm.Spec, s vm.Snapshot, identifier []byte, prepare func(context.Context, vm.Machine) error) error {
	m, err := d.defineSaved(ctx, spec, identifier, newFirstBoot(false))
	if err != nil {
		return err
	}
	if err := m.boot(ctx); err != nil {
		return err
	}
	defer func() {
		m.Kill()
		<-m.done
	}()
	if err := prepare(ctx, m); err != nil {
		return err
	}
	if err := answer(ctx, m.vm.pause); err != nil {
		return fmt.Errorf("pausing the machine: %w", err)
	}
	if err := d.byName(s.State, func(name string) error {
		return answer(ctx, func() error { return m.vm.save(name) })
	}); err != nil {
		return fmt.Errorf("saving the machine: %w", err)
	}
	return context.Cause(ctx)
}

// defineSaved makes a machine that can be saved and restored, stopped: without
// the devices that the framework does not restore.
func (d *Driver) defineSaved(ctx context.Context, spec vm.Spec, identifier []byte, b *firstBoot) (*machine, error) {
	m, err := d.defineWith(ctx, spec, identifier, b, func(c *configuration) { c.entropy = false })
	if err != nil {
		return nil, err
	}
	if err := m.vm.supportsSave(); err != nil {
		m.closeFiles()
		return nil, fmt.Errorf("%w: the framework does not save such a machine: %w", vm.ErrUnsupported, err)
	}
	return m, nil
}

// byName fills a file that is open, although the framework makes its own by name. Only
// one process fills a file at a time: one that is there already is left by a killed process.
func (d *Driver) byName(to *os.File, fill func(name string) error) (err error) {
	path, err := d.path(to)
	if err != nil {
		return err
	}
	dir := path + ".vz"
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := filepath.Join(dir, "file")
	if err := fill(name); err != nil {
		return err
	}
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(to, from)
	return err
}

// restorePatience is how long a restored guest may take to answer. Then a VM
// boots in its place.
const restorePatience = 5 * time.Second

// tryRestore restores a snapshot once, on copies of the disks that a guest writes
// to.
func (d *Driver) tryRestore(ctx context.Context, spec vm.Spec, s vm.Snapshot) error {
	spec.Disks = append([]vm.Disk(nil), spec.Disks...)
	for i, disk := range spec.Disks {
		if disk.ReadOnly {
			continue
		}
		path, err := d.path(disk.File)
		if err != nil {
			return err
		}
		copied, err := os.CreateTemp(filepath.Dir(path), ".vz-*")
		if err != nil {
			return err
		}
		defer os.Remove(copied.Name())
		defer copied.Close()
		if err := template.CopySparse(copied, disk.File); err != nil {
			return err
		}
		spec.Disks[i].File = copied
	}
	m, err := d.Restore(ctx, spec, s)
	if err != nil {
		return err
	}
	m.Kill()
	<-m.Done()
	return nil
}

// maxIdentifier bounds a machine's identifier, in bytes.
const maxIdentifier = 64 << 10

func readIdentifier(f *os.File) ([]byte, error) {
	size := make([]byte, 4)
	if _, err := f.ReadAt(size, 0); err != nil {
		return nil, fmt.Errorf("reading the machine's identifier: %w", err)
	}
	n := binary.BigEndian.Uint32(size)
	if n == 0 || n > maxIdentifier {
		return nil, fmt.Errorf("the machine's identifier has %d bytes: want 1 to %d", n, maxIdentifier)
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, 4); err != nil {
		return nil, fmt.Errorf("reading the machine's identifier: %w", err)
	}
	return data, nil
}

// Restore is part of [vm.Snapshotter].
func (d *Driver) Restore(ctx context.Context, spec vm.Spec, s vm.Snapshot) (vm.Machine, error) {
	identifier, err := readIdentifier(s.Memory)
	if err != nil {
		return nil, err
	}
	state, err := d.path(s.State)
	if err != nil {
		return nil, err
	}
	m, err := d.defineSaved(ctx, saved(spec), identifier, newFirstBoot(true))
	if err != nil {
		return nil, err
	}
	if err := m.run(ctx, func(made virtualMachine) error { return made.restore(state) }); err != nil {
		return nil, fmt.Errorf("restoring the machine: %w", err)
	}
	if err := m.listen(m.vm, false); err != nil {
		m.Kill()
		<-m.done
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, restorePatience, fmt.Errorf("the restored guest did not answer within %v", restorePatience))
	defer cancel()
	if err := m.resume(ctx); err != nil {
		m.Kill()
		<-m.done
		return nil, err
	}
	return m, nil
}

// resume makes a restored machine go on, and connects to its agent, which
// listened when it was saved.
func (m *machine) resume(ctx context.Context) error {
	if err := answer(ctx, m.vm.resume); err != nil {
		return fmt.Errorf("resuming the machine: %w", err)
	}
	result := make(chan error, 1)
	go func() {
		conn, err := m.vm.connect(protocol.VsockPort)
		switch {
		case err == nil && ctx.Err() == nil:
			err = m.greet(conn)
		case err == nil:
			conn.Close()
		}
		result <- err
	}()
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("connecting to the restored guest: %w", errors.Join(err, context.Cause(ctx)))
		}
		return nil
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
