package desktop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/statefile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Change is what is to be different about a desktop from its next boot on. A nil field
// stays as it is.
type Change struct {
	Name     *string
	CPUs     *int
	Memory   *int64 // bytes
	DiskSize *int64 // bytes; a disk only grows
	// ISO and Drivers are paths of ISOs; NoISO takes one out.
	ISO, Drivers *string
	Network      *network.Mode
	// Force takes an ISO that does not fit.
	Force bool
}

// Check says what no desktop can be changed to.
func (c *Change) Check() error {
	if c.Name != nil {
		if err := CheckName(*c.Name); err != nil {
			return err
		}
	}
	var size runtime.VMOptions
	if c.CPUs != nil {
		if size.CPUs = *c.CPUs; size.CPUs < 1 {
			return fmt.Errorf("%d cpus: want 1 to %d", size.CPUs, runtime.MaxCPUs)
		}
	}
	if c.Memory != nil {
		if size.Memory = *c.Memory; size.Memory < 1 {
			return fmt.Errorf("memory of %d B: want at least 64 MB", size.Memory)
		}
	}
	if err := size.CheckSize(); err != nil {
		return err
	}
	if c.DiskSize != nil {
		if err := CheckDiskSize(*c.DiskSize); err != nil {
			return err
		}
	}
	if c.Network != nil {
		return c.Network.Check()
	}
	return nil
}

// Nobody installs anything on less than minDiskSize: it is a typing error. maxDiskSize
// is the longest file of the usual file systems. Both are in bytes.
const (
	minDiskSize = 16 << 20
	maxDiskSize = 16 << 40
)

// CheckDiskSize says what size no user can want of a disk, in bytes.
func CheckDiskSize(size int64) error {
	if size < minDiskSize || size > maxDiskSize {
		return fmt.Errorf("disk of %d bytes: want 16 MB to 16 TB", size)
	}
	return nil
}

// ErrChange is wrapped when a desktop cannot be changed so: what is wrong is the wish.
var ErrChange = errors.New("it cannot be changed so")

// Change changes a desktop that is not running: all that c says, or nothing.
func (s *Store) Change(ctx context.Context, id string, c Change) (*Manifest, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("desktop %q: %w: %w", id, ErrChange, err)
	}
	lock, err := s.lock()
	if err != nil {
		return nil, fmt.Errorf("changing desktop %q: %w", id, err)
	}
	defer lock.Close()
	m, err := s.Find(id)
	if err != nil {
		return nil, err
	}
	held, err := s.hold(m)
	if errors.Is(err, ErrRunning) {
		err = fmt.Errorf("%w; lumina desktop stop %s first", err, m.Name)
	}
	if err != nil {
		return nil, err
	}
	defer held.Close()
	dir := s.path(m.ID)
	if m, err = readManifest(dir); err != nil { // nobody else writes it any more
		return nil, fmt.Errorf("desktop %q: %w", id, err)
	}
	if c.Name != nil && *c.Name != m.Name {
		if err := s.free(*c.Name); err != nil {
			return nil, fmt.Errorf("renaming desktop %q: %w", m.Name, err)
		}
	}
	if err := c.apply(ctx, m); err != nil {
		return nil, fmt.Errorf("desktop %q: %w", m.Name, err)
	}
	if c.DiskSize != nil {
		if err := growDisk(filepath.Join(dir, diskFile), m.DiskSize); err != nil {
			return nil, fmt.Errorf("changing the disk of desktop %q: %w", m.Name, err)
		}
	}
	if err := m.write(dir); err != nil {
		return nil, fmt.Errorf("changing desktop %q: %w", m.Name, err)
	}
	return m, nil
}

// apply changes a manifest.
func (c *Change) apply(ctx context.Context, m *Manifest) error {
	if c.DiskSize != nil {
		if *c.DiskSize < m.DiskSize {
			return fmt.Errorf("%w: its disk has %d bytes and only grows, since what a system has written may be anywhere on it", ErrChange, m.DiskSize)
		}
		m.DiskSize = vm.RoundUp(*c.DiskSize)
	}
	if c.ISO != nil {
		r := Request{Manifest: *m, Force: c.Force}
		if r.ISO = *c.ISO; r.ISO == NoISO {
			r.ISO = ""
		} else if err := r.examineISO(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrChange, err)
		}
		m.ISO = r.ISO
	}
	if c.Drivers != nil {
		path, err := ExamineDrivers(*c.Drivers)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrChange, err)
		}
		m.Drivers = path
	}
	replace(&m.Name, c.Name)
	replace(&m.CPUs, c.CPUs)
	replace(&m.Network, c.Network)
	if c.Memory != nil {
		m.Memory = vm.RoundUp(*c.Memory)
	}
	return nil
}

func replace[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// ExamineDrivers looks whether a file can be a second ISO, and returns its whole path.
func ExamineDrivers(path string) (string, error) {
	if path == "" || path == NoISO {
		return "", nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	f, err := iso.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := iso.ReadFile(f); err != nil {
		return "", fmt.Errorf("second ISO %q: %w", path, err)
	}
	return path, nil
}

// growDisk makes a disk longer; what is new of it reads as zeros and takes no room.
func growDisk(name string, size int64) error {
	f, err := os.OpenFile(name, lockFlags|os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = errors.Join(f.Truncate(size), f.Sync())
	}
	return err
}

// Rename gives a desktop that is not running another name.
func (s *Store) Rename(ctx context.Context, id, name string) (*Manifest, error) {
	return s.Change(ctx, id, Change{Name: &name})
}

// Clone makes a desktop of what another one has, which is not running meanwhile. Where
// the file system can, their disks share what neither has changed. The clone is another
// machine: its identifier and its network address are its own. What its system keeps of
// itself, such as Linux's machine-id, is on its disk and the same.
func (s *Store) Clone(ctx context.Context, driver vm.DesktopDriver, id, newName string) (*Manifest, error) {
	if err := CheckName(newName); err != nil {
		return nil, err
	}
	of, err := s.Find(id)
	if err != nil {
		return nil, err
	}
	held, err := s.hold(of)
	if errors.Is(err, ErrRunning) {
		err = fmt.Errorf("%w: its disk changes while it is copied; lumina desktop stop %s first", err, of.Name)
	}
	if err != nil {
		return nil, err
	}
	defer held.Close()
	from := s.path(of.ID)
	if of, err = readManifest(from); err != nil {
		return nil, fmt.Errorf("desktop %q: %w", id, err)
	}
	if of.Installing {
		return nil, fmt.Errorf("cloning desktop %q: the installation of its system did not finish", of.Name)
	}
	m := *of
	m.Name, m.MAC, m.LastBooted = newName, "", nil
	err = s.make(&m, func(dir string) error {
		if err := cloneDisk(ctx, filepath.Join(dir, diskFile), filepath.Join(from, diskFile)); err != nil {
			return fmt.Errorf("copying its disk: %w", err)
		}
		m.fill(dir, m.Created)
		if err := m.identify(driver); err != nil {
			return err
		}
		return copySmall(ctx, dir, from, m.firmwareFile(), tpmFile)
	})
	if err != nil {
		return nil, fmt.Errorf("cloning desktop %q: %w", of.Name, err)
	}
	return &m, nil
}

// cloneDisk copies the disk of a desktop: its bytes are the guest's, and are not looked
// at for what format they might be in.
func cloneDisk(ctx context.Context, name, from string) error {
	f, err := statefile.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if clone(name, f) {
		return enlarge(name, info.Size())
	}
	return makeFile(name, func(to *os.File) error { return copyDisk(ctx, to, &rawDisk{f, info.Size()}) })
}

// copySmall copies files of a desktop that are there.
func copySmall(ctx context.Context, dir, from string, names ...string) error {
	for _, name := range names {
		f, err := statefile.Open(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = makeFile(filepath.Join(dir, name), func(to *os.File) error {
			info, err := f.Stat()
			if err != nil {
				return err
			}
			return copyDisk(ctx, to, &rawDisk{f, info.Size()})
		})
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
