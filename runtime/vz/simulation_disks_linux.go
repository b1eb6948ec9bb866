package vz

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockDisks locks all disks or none.
func (m *simulated) lockDisks() error {
	m.locking.Lock()
	defer m.locking.Unlock()
	for _, d := range m.c.disks {
		if err := m.lock(d); err != nil {
			m.closeLocks()
			return fmt.Errorf("disk %q: %w", d.serial, err)
		}
	}
	return nil
}

// locked is whether the disks are the machine's at its start. A machine whose start
// fails tells so.
func (m *simulated) locked() error {
	m.locking.Lock()
	held := len(m.locks) > 0 || len(m.c.disks) == 0
	m.locking.Unlock()
	if held {
		return nil
	}
	err := m.lockDisks()
	if err != nil {
		m.changes <- stateOther
		m.changes <- stateStopped
	}
	return err
}

func (m *simulated) lock(d disk) error {
	flag, how := os.O_RDWR, unix.LOCK_EX
	if d.readOnly {
		flag, how = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(d.path, flag, 0)
	if err != nil {
		return err
	}
	m.locks = append(m.locks, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()%512 != 0 {
		return fmt.Errorf("%d bytes are no multiple of 512", info.Size())
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", errLocked, err)
	}
	return nil
}

func (m *simulated) unlock() {
	m.locking.Lock()
	defer m.locking.Unlock()
	m.closeLocks()
}

func (m *simulated) closeLocks() {
	for _, f := range m.locks {
		f.Close()
	}
	m.locks = nil
}
