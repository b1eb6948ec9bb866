package desktop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DamagedError is about a directory in a desktop's place whose manifest cannot be read.
// It keeps no other desktop from anything.
type DamagedError struct {
	ID  string // the directory's name
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("desktop %q: %v; %s", e.ID, e.Err, e.Remedy())
}

// Unwrap is for [errors.Is].
func (e *DamagedError) Unwrap() error { return e.Err }

// Remedy is what a user can do about it.
func (e *DamagedError) Remedy() string {
	if errors.Is(e.Err, errNewer) {
		return "use a newer lumina"
	}
	return fmt.Sprintf("lumina desktop rm %s removes it with its disk", e.ID)
}

var (
	errNewer      = errors.New("this lumina reads older ones only")
	errNoManifest = errors.New("it has no " + manifestFile)
)

// read returns the desktop of a directory of the store: its error is [ErrNotFound], when
// it has gone meanwhile, or a *DamagedError.
func (s *Store) read(id string) (*Manifest, error) {
	m, err := readManifest(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		// What is removed is renamed first: then all of the directory has gone.
		if _, err := os.Lstat(s.path(id)); err != nil {
			return nil, fmt.Errorf("desktop %q: %w", id, ErrNotFound)
		}
		err = errNoManifest
	}
	if err != nil {
		return nil, &DamagedError{id, err}
	}
	return m, nil
}

// Damaged lists the directories in the places of desktops that hold none that can be
// read.
func (s *Store) Damaged() ([]*DamagedError, error) {
	_, damaged, err := s.scan()
	return damaged, err
}

// CleanDamaged removes the empty ones of those. What has files may have somebody's data:
// it stays until [Store.Remove].
func (s *Store) CleanDamaged() (left []*DamagedError, err error) {
	all, err := s.Damaged()
	for _, d := range all {
		if os.Remove(s.path(d.ID)) != nil { // it is not empty
			left = append(left, d)
		}
	}
	return left, err
}

// removeDamaged removes one that Find has found damaged and that nobody runs.
func (s *Store) removeDamaged(d *DamagedError) error {
	lock := filepath.Join(s.path(d.ID), lockFile)
	if info, err := os.Lstat(lock); err == nil && !info.Mode().IsRegular() {
		if err := os.RemoveAll(lock); err != nil { // nobody holds what is not a file
			return err
		}
	}
	held, err := s.hold(&Manifest{ID: d.ID, Name: d.ID})
	if err != nil {
		return err
	}
	defer held.Close()
	if err := s.removeDir(s.path(d.ID), d.ID); err != nil {
		return fmt.Errorf("removing desktop %q: %w", d.ID, err)
	}
	return nil
}
