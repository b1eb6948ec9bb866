package vm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// Limits of a [Spec] that every driver shares: of virtio (serials, tags), and
// what Virtualization.framework refuses, so that QEMU is not given more.
const (
	MinMemory  = 32 << 20 // bytes
	MemoryUnit = 1 << 20  // bytes; memory is a multiple of it
	SectorSize = 512      // bytes; a disk is a multiple of it
	maxSerial  = 20       // bytes, VIRTIO_BLK_ID_BYTES
	maxTag     = 31       // bytes, of a shared directory
	minMTU     = 1280     // bytes, the least of IPv6
	maxMTU     = 65535    // bytes
)

// RoundUp is the size of memory or a disk that every driver takes, of at least
// size bytes: whole mebibytes.
func RoundUp(size int64) int64 {
	if size > math.MaxInt64-MemoryUnit {
		return size // no file is as long
	}
	return (size + MemoryUnit - 1) / MemoryUnit * MemoryUnit
}

// Check says what of a spec no driver can run. It is called once, above the
// drivers; they refuse with [ErrUnsupported] what only they cannot do.
func (s Spec) Check() error {
	if s.Kernel == nil || s.Initramfs == nil {
		return errors.New("a VM needs a kernel and an initramfs")
	}
	if s.CPUs < 1 {
		return fmt.Errorf("%d CPUs: want at least 1", s.CPUs)
	}
	if err := checkMemory(s.Memory); err != nil {
		return err
	}
	if s.Rosetta && s.Arch != "arm64" {
		return fmt.Errorf("a guest with Rosetta is %s: want an arm64 one", s.Arch)
	}
	serials := map[string]bool{}
	for _, d := range s.Disks {
		if d.Serial == "" || len(d.Serial) > maxSerial || serials[d.Serial] {
			return fmt.Errorf("disk %q: want a serial of 1 to %d bytes that no other disk has", d.Serial, maxSerial)
		}
		serials[d.Serial] = true
		if d.File == nil {
			return fmt.Errorf("disk %q: it has no file", d.Serial)
		}
		if err := checkSectors(d.File); err != nil {
			return fmt.Errorf("disk %q: %w", d.Serial, err)
		}
	}
	tags := map[string]bool{}
	for _, share := range s.Shares {
		if share.Tag == "" || len(share.Tag) > maxTag || tags[share.Tag] {
			return fmt.Errorf("shared directory %q: want a tag of 1 to %d bytes that no other has", share.Tag, maxTag)
		}
		tags[share.Tag] = true
		if !filepath.IsAbs(share.Dir) {
			return fmt.Errorf("shared directory %q: its path %q is not absolute", share.Tag, share.Dir)
		}
	}
	return s.Network.check()
}

// Check says what of a desktop's spec no driver can run, see [Spec.Check].
func (s DesktopSpec) Check() error {
	if s.CPUs < 1 {
		return fmt.Errorf("%d CPUs: want at least 1", s.CPUs)
	}
	if err := checkMemory(s.Memory); err != nil {
		return err
	}
	if s.Variables == nil {
		return errors.New("a desktop needs its firmware's variables")
	}
	if s.Disk != nil {
		if err := checkSectors(s.Disk); err != nil {
			return fmt.Errorf("the disk: %w", err)
		}
	}
	if s.HardwareModel != nil && (s.SecureBoot || s.TPM != nil) {
		return errors.New("a Mac has neither a TPM nor EFI's Secure Boot")
	}
	return s.Network.check()
}

func checkMemory(size int64) error {
	if size < MinMemory || size%MemoryUnit != 0 {
		return fmt.Errorf("%d bytes of memory: want a multiple of 1 MiB, at least 32 MiB", size)
	}
	return nil
}

// checkSectors says whether a file can be a disk.
func checkSectors(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && (info.Size() == 0 || info.Size()%SectorSize != 0) {
		return fmt.Errorf("it has %d bytes: want a multiple of %d", info.Size(), SectorSize)
	}
	return nil
}

func (n *NIC) check() error {
	if n == nil {
		return nil
	}
	if len(n.MAC) != 6 || n.MAC[0]&1 != 0 {
		return fmt.Errorf("NIC: %q is not a unicast address of 6 bytes", n.MAC)
	}
	if n.MTU < minMTU || n.MTU > maxMTU {
		return fmt.Errorf("NIC: MTU of %d bytes: want %d to %d", n.MTU, minMTU, maxMTU)
	}
	if n.Socket == nil {
		return errors.New("NIC: it has no socket")
	}
	return nil
}
