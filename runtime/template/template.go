// Package template keeps snapshots of booted machines, taken before they are configured
// for a run. They are restored copy-on-write.
//
// A template is a directory, readable by its user only, that is named by the
// digest of all it was made from:
//
//	memory   the guest's memory, sparse
//	state    of the devices
//	scratch  the VM's disk as it was, sparse
//	template.json
//
// template.json is written last. It holds the identity of the other files, including
// the inode and the time of change (ctime), which a program cannot set. So a file that was
// written to, truncated, copied or replaced is detected without reading it, and the
// template is made again.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// MaxTemplates is how many are kept; the ones not used for the longest time go.
const MaxTemplates = 8

const description = "template.json"

// maxDescription bounds template.json, in bytes.
const maxDescription = 1 << 20

// fileNames are the files of a template, in the order of [Template.Files].
var fileNames = [...]string{"memory", "state", "scratch"}

// Files are the open files of a template.
type Files struct{ Memory, State, Scratch *os.File }

func (f *Files) all() []**os.File { return []**os.File{&f.Memory, &f.State, &f.Scratch} }

// Close closes what is open.
func (f *Files) Close() {
	for _, file := range f.all() {
		if *file != nil {
			(*file).Close()
		}
	}
}

var (
	// ErrNone: there is no template.
	ErrNone = errors.New("no template")
	// ErrDiscarded is wrapped when there was one that could not be trusted. It is
	// removed.
	ErrDiscarded = errors.New("the template was discarded")
)

// Store is a directory of templates.
type Store struct{ dir string }

// NewStore makes a store of a directory, which need not exist yet.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Key names a template by all it is made from.
func Key(inputs ...any) (string, error) {
	b, err := json.Marshal(append([]any{"template 1", os.Getuid()}, inputs...))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

// isKey says whether s has the form of Key's names.
func isKey(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}

// identity is what a file was when its template was complete.
type identity struct {
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	Changed int64  `json:"changed"` // nanoseconds since 1970
}

// content is template.json.
type content struct {
	Key   string              `json:"key"`
	Files map[string]identity `json:"files"`
}

// Open opens a template for use.
func (s *Store) Open(key string) (*Files, error) {
	dir := filepath.Join(s.dir, key)
	b, err := statefile.Read(filepath.Join(dir, description), maxDescription)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	var want content
	if err == nil {
		err = json.Unmarshal(b, &want)
	}
	if err != nil || want.Key != key {
		return nil, s.reject(dir, fmt.Errorf("%s is damaged", description))
	}
	if err := private(dir); err != nil {
		return nil, s.reject(dir, err)
	}
	files := &Files{}
	for i, f := range files.all() {
		// QEMU opens memory that is a file for writing, also to read it only.
		if *f, err = statefile.Open(filepath.Join(dir, fileNames[i])); err != nil {
			break
		}
		var got identity
		if got, err = identify(*f); err == nil && got != want.Files[fileNames[i]] {
			err = fmt.Errorf("file %q was modified", fileNames[i])
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		files.Close()
		return nil, s.reject(dir, err)
	}
	// The time of the last use, for eviction; it matters to nothing else.
	now := time.Now()
	_ = os.Chtimes(dir, now, now)
	return files, nil
}

// Usage is how many templates there are, and how many bytes they take: their
// files are sparse.
func (s *Store) Usage() (count int, bytes int64, err error) {
	dirs, err := filepath.Glob(filepath.Join(s.dir, "*", "template.json"))
	if err != nil {
		return 0, 0, err
	}
	for _, d := range dirs {
		files, err := os.ReadDir(filepath.Dir(d))
		if err != nil {
			continue // removed in the meantime
		}
		count++
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				bytes += allocated(info)
			}
		}
	}
	return count, bytes, nil
}

// Remove removes a template. Who uses it has its files open.
func (s *Store) Remove(key string) error { return remove(filepath.Join(s.dir, key)) }

// remove takes away first what vouches for the rest: what is removed halfway is
// no template.
func remove(dir string) error {
	info, err := os.Lstat(dir)
	if err == nil && info.IsDir() {
		err = os.Remove(filepath.Join(dir, description))
	}
	if errors.Is(err, syscall.ENOTEMPTY) {
		err = nil // a directory in its place, with files
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// reject removes a template that cannot be trusted.
func (s *Store) reject(dir string, why error) error {
	return errors.Join(fmt.Errorf("%w: %w", ErrDiscarded, why), remove(dir))
}

// Make makes a template, unless it is there or being made. fill writes the
// files, which are empty.
func (s *Store) Make(ctx context.Context, key string, fill func(*Files) error) error {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of templates: %w", err)
	}
	lock, err := statefile.CreateLock(filepath.Join(s.dir, key+".lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if busy, err := flock.TryExclusive(lock); busy || err != nil {
		return err
	}
	if !flock.Names(lock.Name(), lock) {
		return nil // another process has just made or cleaned it; the next start makes it
	}
	defer os.Remove(lock.Name())
	dir := filepath.Join(s.dir, key)
	if _, err := os.Stat(filepath.Join(dir, description)); err == nil {
		return nil
	}
	// What a maker that was killed left.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := s.evict(MaxTemplates - 1); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	// Until it is made, others need not try; one whose maker is killed is no use
	// either.
	if err := s.Fail(key, errors.New("it is being made, or its maker was killed")); err != nil {
		return err
	}
	err = s.make(dir, key, fill)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return s.forgive(key)
	}
	note := s.forgive // a cancelled attempt does not count as a failure
	if ctx.Err() == nil {
		note = func(key string) error { return s.Fail(key, err) }
	}
	return errors.Join(err, note(key), os.RemoveAll(dir))
}

func (s *Store) make(dir, key string, fill func(*Files) error) error {
	files := &Files{}
	defer files.Close()
	var err error
	for i, f := range files.all() {
		if *f, err = os.OpenFile(filepath.Join(dir, fileNames[i]), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
	}
	if err := fill(files); err != nil {
		return err
	}
	made := content{Key: key, Files: map[string]identity{}}
	for i, f := range files.all() {
		if made.Files[fileNames[i]], err = identify(*f); err != nil {
			return err
		}
	}
	b, err := json.Marshal(made)
	if err != nil {
		return err
	}
	// The files are on disk before template.json, which vouches for them. A start from
	// the template syncs nothing.
	if err := durable.SyncTree(dir); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, description), b, 0o600)
}

// evict removes templates, the least recently used first, until so many are left.
func (s *Store) evict(keep int) error {
	type used struct {
		path string
		at   time.Time
	}
	var all []used
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && isKey(e.Name()) {
			all = append(all, used{filepath.Join(s.dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b used) int { return b.at.Compare(a.at) })
	for _, u := range all[min(keep, len(all)):] {
		// Who uses it has its files open.
		if err := remove(u.path); err != nil {
			return err
		}
	}
	return nil
}

// Clean removes templates that were never finished and, with all, every one.
func (s *Store) Clean(all bool) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if key, ok := strings.CutSuffix(e.Name(), failureSuffix); ok && isKey(key) {
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("cleaning templates: %w", err)
			}
			continue
		}
		key := strings.TrimSuffix(e.Name(), ".lock")
		if !isKey(key) {
			continue // it is no template
		}
		lock, err := statefile.CreateLock(filepath.Join(s.dir, key+".lock"))
		if err != nil {
			return err
		}
		busy, err := flock.TryExclusive(lock)
		// Another process that cleans may have removed the lock meanwhile.
		if !busy && err == nil && flock.Names(lock.Name(), lock) {
			dir := filepath.Join(s.dir, key)
			if _, statErr := os.Stat(filepath.Join(dir, description)); all || statErr != nil {
				err = remove(dir)
			}
			err = errors.Join(err, os.Remove(lock.Name()))
		}
		lock.Close()
		if err != nil {
			return fmt.Errorf("cleaning templates: %w", err)
		}
	}
	return nil
}

// CopySparse copies what is not a hole of from to an empty file.
func CopySparse(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	return eachExtent(from, info.Size(), func(start, length int64) error {
		_, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, length))
		return err
	})
}
