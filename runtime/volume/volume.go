// Package volume keeps named disks that outlive VMs: each is one sparse file
// with a journaled file system, used by one VM at a time.
package volume

import (
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
)

// DefaultSize is a new volume's, in bytes. Only what is written takes room.
const DefaultSize = 10 << 30

const extension = ".img"

var (
	// ErrNotFound is wrapped when there is no volume of a name.
	ErrNotFound = errors.New("no such volume")
	// ErrInUse is wrapped when another VM has the volume.
	ErrInUse = errors.New("in use by another VM")
	// ErrExists is wrapped when there is a volume of the name already.
	ErrExists = errors.New("there is one already")
)

// Store is a directory of volumes.
type Store struct{ dir string }

// NewStore makes a store of a directory, which need not exist yet.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// CheckName returns an error when a volume cannot have this name.
func CheckName(s string) error { return name.Check("volume", s) }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name+extension) }

// Create makes an empty volume of size bytes.
func (s *Store) Create(name string, size int64) error {
	if err := CheckName(name); err != nil {
		return err
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
	if err := errors.Join(ext4.Format(f, size, o), ext4.Reserve(f, size)); err != nil {
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
	dir, err := os.Open(s.dir)
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

// Clean removes volumes whose makers were killed.
func (s *Store) Clean() error {
	dir, err := os.Open(s.dir)
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
	if err != nil {
		return fmt.Errorf("cleaning the volumes: %w", err)
	}
	return nil
}

func removeDead(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if busy, err := flock.TryExclusive(f); busy || err != nil {
		return err
	}
	return os.Remove(name)
}

// Open opens a volume for the one VM that may use it. Closing the file ends
// that.
func (s *Store) Open(name string) (*os.File, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("volume %q: %w; make it with: lumina volume create %s", name, ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening volume %q: %w", name, err)
	}
	busy, err := flock.TryExclusive(f)
	if err == nil && busy {
		err = ErrInUse
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening volume %q: %w", name, err)
	}
	return f, nil
}

// Info describes a volume.
type Info struct {
	Name  string `json:"name"`
	Size  int64  `json:"size_bytes"`
	Used  int64  `json:"used_bytes"` // on the host
	InUse bool   `json:"in_use"`
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
	f, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(s.path(name)); err != nil {
		return err
	}
	return durable.Sync(s.dir) // what is removed does not come back
}
