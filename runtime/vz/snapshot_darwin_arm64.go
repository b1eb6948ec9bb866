//go:build cgo

package vz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	apple "github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

var _ vm.Snapshotter = (*Driver)(nil)

// frozenMAC is the device's address in a machine that is frozen, and so in each
// that is thawed: the framework restores a machine into one of the same
// configuration only. The guest gives its interface another.
var frozenMAC = net.HardwareAddr{2, 'l', 'u', 'm', 'i', 'n'}

func frozen(spec vm.Spec) vm.Spec {
	if spec.Network != nil {
		n := *spec.Network
		n.MAC = frozenMAC
		spec.Network = &n
	}
	return spec
}

// Fingerprint is part of [vm.Snapshotter].
func (*Driver) Fingerprint(_ context.Context, spec vm.Spec) (string, error) {
	if len(spec.Shares) > 0 {
		return "", fmt.Errorf("%w: the framework does not save machines with shared directories", vm.ErrUnsupported)
	}
	id := []any{Name}
	for _, of := range []string{"kern.osversion", "hw.model"} {
		value, err := unix.Sysctl(of)
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", of, err)
		}
		id = append(id, value)
	}
	return fmt.Sprintln(id...), nil
}

// Save is part of [vm.Snapshotter]. The framework's file has the memory, too: in
// that of the memory is the machine's identifier, which belongs to its
// configuration.
func (*Driver) Save(ctx context.Context, spec vm.Spec, s vm.Snapshot, prepare func(context.Context, vm.Machine) error) error {
	identifier, err := apple.NewGenericMachineIdentifier()
	if err != nil {
		return fmt.Errorf("making the machine's identifier: %w", err)
	}
	m, err := define(frozen(spec), identifier)
	if err != nil {
		return err
	}
	if ok, err := m.config.ValidateSaveRestoreSupport(); !ok || err != nil {
		m.closeConsole()
		return fmt.Errorf("%w: %w", vm.ErrUnsupported, errors.Join(errors.New("the framework does not save such a machine"), err))
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
	if err := m.vm.Pause(); err != nil {
		return fmt.Errorf("pausing the machine: %w", err)
	}
	if err := byName(s.State, m.vm.SaveMachineStateToPath); err != nil {
		return fmt.Errorf("saving the machine: %w", err)
	}
	data := identifier.DataRepresentation()
	_, err = s.Memory.WriteAt(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...), 0)
	return err
}

// maxIdentifier bounds a machine's identifier, in bytes.
const maxIdentifier = 64 << 10

// Restore is part of [vm.Snapshotter].
func (*Driver) Restore(ctx context.Context, spec vm.Spec, s vm.Snapshot) (vm.Machine, error) {
	size := make([]byte, 4)
	if _, err := s.Memory.ReadAt(size, 0); err != nil {
		return nil, fmt.Errorf("reading the machine's identifier: %w", err)
	}
	n := binary.BigEndian.Uint32(size)
	if n > maxIdentifier {
		return nil, fmt.Errorf("the machine's identifier has %d bytes", n)
	}
	data := make([]byte, n)
	if _, err := s.Memory.ReadAt(data, 4); err != nil {
		return nil, fmt.Errorf("reading the machine's identifier: %w", err)
	}
	identifier, err := apple.NewGenericMachineIdentifierWithData(data)
	if err != nil {
		return nil, fmt.Errorf("the machine's identifier: %w", err)
	}
	state, err := filePath(s.State)
	if err != nil {
		return nil, err
	}
	m, err := define(frozen(spec), identifier)
	if err != nil {
		return nil, err
	}
	states := m.vm.StateChangedNotify()
	if err := m.vm.RestoreMachineStateFromURL(state); err != nil {
		m.closeConsole()
		return nil, fmt.Errorf("restoring the machine: %w", err)
	}
	go m.watch(ctx, states)
	close(m.ready) // its agent listened when it was frozen
	if err := m.vm.Resume(); err != nil {
		m.Kill()
		<-m.done
		return nil, fmt.Errorf("resuming the machine: %w", err)
	}
	return m, nil
}
