// Package volume keeps named disks that outlive VMs: each is one sparse file
// with a journaled file system, used by one VM at a time.
package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/statefile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// DefaultSize is a new volume's, in bytes. Only what is written takes room.
const DefaultSize = 10 << 30

const extension = ".img"

var (
	// ErrNotFound is wrapped when there is no volume of a name.
	ErrNotFound = errors.New("no such volume")
	// ErrInUse is wrapped when another VM has the volume.
	ErrInUse = errors.New("in use")
	// ErrExists is wrapped when there is a volume of the name already.
	ErrExists = errors.New("already exists")
	// ErrDamaged is wrapped when what has the name of a volume, or of its lock, is no file.
	ErrDamaged = errors.New("damaged")
)

// Store is a directory of volumes.
type Store struct{ dir string }

// NewStore makes a store of a directory, which need not exist yet.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// CheckName returns an error when a volume cannot have this name.
func CheckName(s string) error { return name.Check("volume", s) }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name+extension) }

// Create makes an empty volume of size bytes, rounded up to what every driver takes.
func (s *Store) Create(name string, size int64) error {
	size = vm.RoundUp(size)
	if err := CheckName(name); err != nil {
		return err
	}
	if err := s.spelled(name); err != nil {
		return fmt.Errorf("creating volume %q: %w", name, err)
	}
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the volume store: %w", err)
	}
	f, err := s.makeTemp()
	if err != nil {
		return fmt.Errorf("creating volume %q: %w", name, err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	o := ext4.Options{Label: name[:min(len(name), 16)]}
	_, _ = rand.Read(o.UUID[:]) // never fails, see crypto/rand
	err = ext4.Format(f, size, o)
	if err == nil {
		err = ext4.Reserve(f, size)
	}
	if err != nil {
		return fmt.Errorf("creating volume %q: %w", name, err)
	}
	// Unlike a rename, a link does not replace what is there.
	if err := durable.Place(f.Name(), s.path(name), os.Link); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("creating volume %q: %w", name, ErrExists)
	} else if err != nil {
		return fmt.Errorf("creating volume %q: %w", name, err)
	}
	return nil
}

// unfinished begins the names of volumes that are being made, which their makers
// have locked.
const unfinished = ".new-"

func (s *Store) makeTemp() (*os.File, error) {
	// A file that has no lock yet is not to be taken for one of the dead.
	dir, err := statefile.OpenDir(s.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := flock.Shared(dir); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, unfinished+"*")
	if err != nil {
		return nil, err
	}
	if _, err := flock.TryExclusive(f); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// Clean removes volumes whose makers were killed, and locks that are left of
// volumes.
func (s *Store) Clean() error {
	dir, err := statefile.OpenDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cleaning the volumes: %w", err)
	}
	defer dir.Close()
	if busy, err := flock.TryExclusive(dir); busy || err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(s.dir, unfinished+"*"))
	for _, name := range left {
		err = errors.Join(err, removeDead(name))
	}
	locks, globErr := filepath.Glob(filepath.Join(s.dir, "*"+lockExtension))
	err = errors.Join(err, globErr)
	for _, lock := range locks {
		name := strings.TrimSuffix(filepath.Base(lock), lockExtension)
		if _, statErr := os.Lstat(s.path(name)); errors.Is(statErr, fs.ErrNotExist) {
			err = errors.Join(err, removeDead(lock))
		}
	}
	if err != nil {
		return fmt.Errorf("cleaning the volumes: %w", err)
	}
	return nil
}

// removeDead removes a file that no process has locked. It is no error if the file is
// gone: its maker, or another process that cleans, was faster.
func removeDead(name string) error {
	f, err := statefile.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, statefile.ErrDamaged):
		err = os.Remove(name) // a link, a FIFO: nobody makes a volume there
	case err != nil:
		return err
	default:
		defer f.Close()
		if busy, err := flock.TryExclusive(f); busy || err != nil {
			return err
		}
		if !flock.Names(name, f) {
			return nil // what has the name now is another process's
		}
		err = os.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Disk is a volume that is open, for one VM alone.
type Disk struct {
	*os.File
	// Lock is the locked file beside the disk (a hypervisor may lock the disk itself). The
	// driver keeps it open as long as the VM has the disk.
	Lock *os.File
}

// Close closes both files. The volume is free when no process holds the lock.
func (d *Disk) Close() error { return errors.Join(d.File.Close(), d.Lock.Close()) }

// lockExtension is of the file that is locked while a VM has the volume.
const lockExtension = ".lock"

func (s *Store) lockPath(name string) string { return filepath.Join(s.dir, name+lockExtension) }

// Open opens a volume for the one VM that may use it. Closing the disk ends that.
func (s *Store) Open(name string) (*Disk, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.path(name)); err != nil {
		if _, linkErr := os.Lstat(s.path(name)); linkErr == nil {
			return nil, fmt.Errorf("volume %q is %w: its file is a link that leads nowhere", name, ErrDamaged)
		}
		return nil, s.openError(name, err)
	}
	if err := s.spelled(name); err != nil {
		return nil, fmt.Errorf("volume %q: %w: %w", name, ErrNotFound, err)
	}
	lock, err := s.lock(name)
	if err != nil {
		return nil, fmt.Errorf("opening volume %q: %w", name, err)
	}
	f, err := os.OpenFile(s.path(name), os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err == nil {
		err = regular(f)
	}
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			os.Remove(lock.Name())
		}
		lock.Close()
		return nil, s.openError(name, err)
	}
	if err := wholeSectors(f); err != nil {
		f.Close()
		lock.Close()
		return nil, fmt.Errorf("opening volume %q: %w", name, err)
	}
	return &Disk{f, lock}, nil
}

// OpenReadOnly is Open for a VM that is only to read: neither can who has the file write
// to it. A hypervisor takes no other for a disk that is read-only.
func (s *Store) OpenReadOnly(name string) (*Disk, error) {
	d, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err == nil && !flock.Names(s.path(name), d.File) {
		err = errors.Join(errors.New("it was replaced meanwhile"), f.Close())
	}
	if err != nil {
		d.Close()
		return nil, s.openError(name, err)
	}
	d.File.Close()
	d.File = f
	return d, nil
}

// spelled is an error when the disk takes a name for that of a volume which is spelt
// otherwise.
func (s *Store) spelled(volume string) error {
	other, err := name.Other(s.dir, volume+extension)
	if err == nil && other != "" {
		err = fmt.Errorf("there is %q, and this disk ignores case in names", strings.TrimSuffix(other, extension))
	}
	return err
}

// regular closes what is no file: a VM's disk is nothing else of the host's.
func regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no file", ErrDamaged, filepath.Base(f.Name()))
	}
	if err != nil {
		f.Close()
	}
	return err
}

// wholeSectors lengthens a disk that an older lumina made of any size. Its file
// system stays as it is.
func wholeSectors(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size()%vm.SectorSize == 0 {
		return err
	}
	return f.Truncate(vm.RoundUp(info.Size()))
}

// Wait waits until no VM has a volume, or ctx ends. Another one may have it again before
// the caller opens it.
func (s *Store) Wait(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	f, err := os.OpenFile(s.lockPath(name), os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its last VM has ended, and it was removed
	}
	if err == nil {
		if err = regular(f); err != nil {
			f.Close()
		}
	}
	if err == nil {
		err = flock.Exclusive(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("waiting for volume %q: %w", name, err)
	}
	return f.Close()
}

func (s *Store) openError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %q: %w; make it with: lumina volume create %s", name, ErrNotFound, name)
	}
	return fmt.Errorf("opening volume %q: %w", name, err)
}

// lock takes a volume's lock.
func (s *Store) lock(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(s.lockPath(name), os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
		if err == nil {
			err = regular(f)
		} else if info, statErr := os.Lstat(s.lockPath(name)); statErr == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil {
			return nil, err
		}
		busy, err := flock.TryExclusive(f)
		if err == nil && busy {
			err = fmt.Errorf("%w by %w", ErrInUse, &flock.HeldError{Kind: "volume", Name: name, PIDs: flock.Holders(f)})
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		// Removing a volume removes its lock file, too. A lock without a name locks nothing.
		if flock.Names(s.lockPath(name), f) {
			return f, nil
		}
		f.Close()
	}
}

// Info describes a volume.
type Info struct {
	Name  string `json:"name"`
	Size  int64  `json:"size_bytes"`
	Used  int64  `json:"used_bytes"` // on the host
	InUse bool   `json:"in_use"`
	Error string `json:"error,omitempty"` // why it is not known, in a list
}

// Inspect describes a volume.
func (s *Store) Inspect(name string) (Info, error) {
	i := Info{Name: name}
	f, err := s.Open(name)
	switch {
	case errors.Is(err, ErrInUse):
		i.InUse = true
	case err != nil:
		return i, err
	default:
		defer f.Close()
	}
	i.Size, i.Used, err = sizes(s.path(name))
	return i, err
}

// InspectAll describes all volumes, and says of each that is damaged how.
func (s *Store) InspectAll() ([]Info, error) {
	names, err := s.List()
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, name := range names {
		i, err := s.Inspect(name)
		switch {
		case errors.Is(err, ErrNotFound): // removed meanwhile
		case err != nil:
			all = append(all, Info{Name: name, Error: err.Error()})
		default:
			all = append(all, i)
		}
	}
	return all, nil
}

// List returns the names of all volumes, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), extension); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// Remove removes a volume that no VM uses, and all it holds.
func (s *Store) Remove(name string) error {
	if err := s.spelled(name); err != nil {
		return fmt.Errorf("removing volume %q: %w: %w", name, ErrNotFound, err)
	}
	f, err := s.Open(name)
	if errors.Is(err, ErrDamaged) { // no VM has that
		err = os.Remove(s.path(name))
		if lockErr := os.Remove(s.lockPath(name)); !errors.Is(lockErr, fs.ErrNotExist) {
			err = errors.Join(err, lockErr)
		}
		return err
	}
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("removing volume %q: %w; lumina volume list has those that are here", name, ErrNotFound)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(os.Remove(s.path(name)), os.Remove(f.Lock.Name())); err != nil {
		return err
	}
	return durable.Sync(s.dir) // what is removed does not come back
}
