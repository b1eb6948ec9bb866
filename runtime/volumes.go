package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/share"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Volume is something of the host's that the VM has at Path: the volume of a
// name, or a directory.
type Volume struct {
	Name     string // in the volume store; one that is not there is made, or
	Dir      string // on the host, absolute
	Path     string // in the guest, absolute
	ReadOnly bool
}

// addVolumes opens volumes: each for this VM alone, as long as it runs.
func (r *Runtime) addVolumes(p *plan, volumes []Volume) error {
	if err := CheckVolumes(volumes); err != nil {
		return err
	}
	for i, v := range volumes {
		m := protocol.Mount{Path: v.Path, ReadOnly: v.ReadOnly}
		if v.Dir != "" {
			info, err := os.Stat(v.Dir)
			if err != nil {
				return fmt.Errorf("sharing a directory: %w", err)
			}
			if !info.IsDir() {
				return fmt.Errorf("sharing %s: it is not a directory", v.Dir)
			}
			if err := share.Check(v.Dir); err != nil {
				return fmt.Errorf("sharing a directory: %w", err)
			}
			m.Share = fmt.Sprintf("share%d", i)
			s := vm.Share{Dir: v.Dir, Tag: m.Share, ReadOnly: v.ReadOnly}
			if _, own := r.Driver.(vm.Sharer); own {
				p.spec.Shares = append(p.spec.Shares, s)
			} else {
				m.Served = true
				p.shares = append(p.shares, s)
			}
		} else {
			d, err := r.openVolume(v.Name, v.ReadOnly)
			if err != nil {
				return err
			}
			m.Disk = fmt.Sprintf("%s%d", protocol.DiskVolume, i)
			p.spec.Disks = append(p.spec.Disks, vm.Disk{File: d.File, Lock: d.Lock, Serial: m.Disk, ReadOnly: v.ReadOnly})
		}
		p.configure.Mounts = append(p.configure.Mounts, m)
	}
	return nil
}

// CheckVolumes says whether a VM can have volumes at their paths.
func CheckVolumes(volumes []Volume) error {
	seen := map[string]bool{}
	named := map[string]string{}
	for _, v := range volumes {
		if err := checkMountPoint(v.Path, seen); err != nil {
			return fmt.Errorf("volume at %q: %w", v.Path, err)
		}
		if v.Dir != "" {
			continue
		}
		// It is a disk, which is open once.
		if other, ok := named[v.Name]; ok {
			return fmt.Errorf("volume %q: it cannot be at both %q and %q; give it once, and make a link in the VM", v.Name, other, v.Path)
		}
		named[v.Name] = v.Path
	}
	return nil
}

// checkMountPoint says whether a volume can be at a path, which is then one of those seen.
func checkMountPoint(p string, seen map[string]bool) error {
	if !path.IsAbs(p) {
		return errors.New("the path in the VM is not absolute")
	}
	p = path.Clean(p)
	switch p {
	case "/", "/dev", "/proc", "/sys":
		return fmt.Errorf("the VM needs its own %s", p)
	}
	if seen[p] {
		return errors.New("there is another one at this path")
	}
	seen[p] = true
	return nil
}

// openVolume opens a volume, and makes it first where there is none.
func (r *Runtime) openVolume(name string, readOnly bool) (*volume.Disk, error) {
	open := r.Volumes.Open
	if readOnly {
		open = r.Volumes.OpenReadOnly
	}
	d, err := open(name)
	if !errors.Is(err, volume.ErrNotFound) {
		return d, err
	}
	if err := r.Volumes.Create(name, volume.DefaultSize); err != nil && !errors.Is(err, volume.ErrExists) {
		return nil, err // another may have made it meanwhile
	}
	return open(name)
}
