package desktop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime/durable"
)

// UndoTime is how long a desktop can be restored for certain once it was removed with
// [Store.SetAside].
const UndoTime = time.Minute

// aside is how directories begin of desktops that were removed and can be restored;
// then come the time, in milliseconds since 1970, and the identifier.
const aside = ".removed-"

// Removed is a desktop that was removed, and can be restored.
type Removed struct {
	*Manifest
	At  time.Time // when it was removed
	dir string
}

// Until is how long it can be restored for certain.
func (r *Removed) Until() time.Time { return r.At.Add(UndoTime) }

// SetAside removes a desktop that is not running so that [Store.Restore] can bring it
// back. Its disk keeps its room until [Store.Purge].
func (s *Store) SetAside(id string) (*Removed, error) {
	m, err := s.Find(id)
	if err != nil {
		return nil, err
	}
	lock, err := s.hold(m)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	r := &Removed{Manifest: m, At: time.Now().UTC()}
	r.dir = filepath.Join(s.dir, fmt.Sprintf("%s%d-%s", aside, r.At.UnixMilli(), m.ID))
	err = os.Rename(s.path(m.ID), r.dir)
	if err == nil {
		err = durable.Sync(s.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("removing desktop %q: %w", m.Name, err)
	}
	return r, nil
}

// Removed lists the desktops that can be restored, that which was removed last first.
func (s *Store) Removed() ([]*Removed, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing removed desktops: %w", err)
	}
	var all []*Removed
	for _, e := range entries {
		r, ok := parseAside(e.Name())
		if !ok {
			continue
		}
		r.dir = filepath.Join(s.dir, e.Name())
		id := r.ID
		// One whose manifest cannot be read can be purged only.
		if m, err := readManifest(r.dir); err == nil {
			r.Manifest = m
			m.ID = id
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *Removed) int { return b.At.Compare(a.At) })
	return all, nil
}

func parseAside(name string) (*Removed, bool) {
	rest, ok := strings.CutPrefix(name, aside)
	at, id, found := strings.Cut(rest, "-")
	ms, err := strconv.ParseInt(at, 10, 64)
	if !ok || !found || err != nil || id == "" {
		return nil, false
	}
	return &Removed{Manifest: &Manifest{ID: id}, At: time.UnixMilli(ms).UTC()}, true
}

// Restore brings back the desktop of a name or identifier that was removed last. newName
// is what it is called from then on; "" for what it was.
func (s *Store) Restore(id, newName string) (*Manifest, error) {
	lock, err := s.lock()
	if err != nil {
		return nil, fmt.Errorf("restoring desktop %q: %w", id, err)
	}
	defer lock.Close()
	all, err := s.Removed()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(r *Removed) bool { return r.Name != "" && r.Name == id })
	if i < 0 {
		i = slices.IndexFunc(all, func(r *Removed) bool { return r.Name != "" && isBeginning(id, r.ID) })
	}
	if i < 0 {
		return nil, fmt.Errorf("desktop %q: %w that was removed and can be restored", id, ErrNotFound)
	}
	m := all[i].Manifest
	if newName != "" {
		m.Name = newName
	}
	if err := s.free(m.Name); err != nil {
		return nil, fmt.Errorf("restoring desktop %q: %w; give it another name", id, err)
	}
	if newName != "" {
		err = m.write(all[i].dir)
	}
	if err == nil {
		err = os.Rename(all[i].dir, s.path(m.ID))
	}
	if err == nil {
		err = durable.Sync(s.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("restoring desktop %q: %w", id, err)
	}
	return m, nil
}

// Purge removes for good what was set aside before a time, and returns how many bytes
// of the disk came free.
func (s *Store) Purge(before time.Time) (freed int64, err error) {
	all, err := s.Removed()
	for _, r := range all {
		if r.At.After(before) {
			continue
		}
		size, _ := allocated(r.dir)
		removeErr := s.removeDir(r.dir, r.ID)
		if errors.Is(removeErr, fs.ErrNotExist) {
			continue // restored meanwhile, or another one removes it
		}
		if err = errors.Join(err, removeErr); removeErr == nil {
			freed += size
		}
	}
	if err != nil {
		err = fmt.Errorf("removing desktops for good: %w", err)
	}
	return freed, err
}

// PurgeExpired removes for good what was set aside longer than UndoTime ago.
func (s *Store) PurgeExpired() error {
	_, err := s.Purge(time.Now().Add(-UndoTime))
	return err
}

// removeDir removes a desktop's directory. It is renamed first: what is removed
// halfway is not a desktop.
func (s *Store) removeDir(dir, id string) error {
	gone := filepath.Join(s.dir, unfinished+id)
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	if err := durable.Sync(s.dir); err != nil { // before it is removed halfway
		return err
	}
	return os.RemoveAll(gone)
}

// free says whether a desktop can be called so, and no other is. The store is locked.
func (s *Store) free(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	all, err := s.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(m *Manifest) bool { return m.Name == name }) {
		return fmt.Errorf("desktop %q: %w", name, ErrExists)
	}
	return nil
}
