package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// Store is a directory of images.
type Store struct{ dir string }

// NewStore makes a store of a directory, which need not exist yet.
func NewStore(dir string) *Store { return &Store{dir: dir} }

var (
	// ErrNotFound is wrapped when the store has no image of a name.
	ErrNotFound = errors.New("no such image")
	// ErrInUse is wrapped when an image cannot be removed because it is used.
	ErrInUse = errors.New("in use")
	// ErrExists is wrapped when a store has an image of a name already.
	ErrExists = errors.New("already exists")
)

// CheckName returns an error when an image cannot have this name.
func CheckName(s string) error { return name.Check("image", s) }

// Has says whether there is an image of a name, which may be a broken one.
func (s *Store) Has(name string) bool {
	return CheckName(name) == nil && s.spelled(name) == nil && exists(filepath.Join(s.dir, name, metadata))
}

// spelled is an error when the disk takes a name for that of an image which is spelt
// otherwise.
func (s *Store) spelled(image string) error {
	other, err := name.Other(s.dir, image)
	if err == nil && other != "" {
		err = fmt.Errorf("there is %q, and this disk ignores case in names", other)
	}
	return err
}

// Open opens an image for use.
func (s *Store) Open(name string) (*Handle, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := s.spelled(name); err != nil {
		return nil, fmt.Errorf("image %q: %w: %w", name, ErrNotFound, err)
	}
	h, err := OpenDir(filepath.Join(s.dir, name))
	if errors.Is(err, os.ErrNotExist) && isLink(filepath.Join(s.dir, name)) {
		err = fmt.Errorf("%w: it is a link", ErrInvalid)
	}
	if errors.Is(err, ErrInvalid) {
		return nil, fmt.Errorf("opening image %q: %w; remove it with: lumina images rm %s", name, err, name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("image %q: %w; make it with: lumina images create %s --from REF", name, ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening image %q: %w", name, err)
	}
	h.Name = name
	return h, nil
}

// OpenDir opens an image that is not in a store.
func OpenDir(dir string) (*Handle, error) {
	for {
		h, err := openDir(dir)
		if errors.Is(err, errReplaced) {
			continue
		}
		if h != nil && !flock.Names(filepath.Join(dir, metadata), h.lock) {
			h.Close() // replaced or removed meanwhile: what was read is not what is locked
			continue
		}
		if err != nil && h != nil {
			h.Close()
			h = nil
		}
		return h, err
	}
}

// OpenUnfinished opens an image of a directory that has its other files and not yet
// its description, which is img.
func OpenUnfinished(dir string, img *Image) (*Handle, error) {
	root, err := statefile.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	lock, err := root.Open(".") // nobody else has the directory
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Handle{Image: img, dir: dir, root: root, lock: lock}, nil
}

// openDir returns a handle, to be closed, also when the image is none.
func openDir(dir string) (*Handle, error) {
	root, err := statefile.OpenRoot(dir)
	if errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return nil, err
	}
	lock, err := openFile(root, metadata)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			// An image has lost its name before it loses a file.
			err = errReplaced
			if hasName(root, dir) {
				err = fmt.Errorf("%w: it has no %s", ErrInvalid, metadata)
			}
		}
		return nil, errors.Join(err, root.Close())
	}
	h := &Handle{dir: dir, root: root, lock: lock}
	if err := flock.Shared(lock); err != nil {
		return h, err
	}
	h.Image, err = read(root, io.NewSectionReader(lock, 0, maxMetadata+1))
	var missing *os.PathError
	if errors.Is(err, os.ErrNotExist) && errors.As(err, &missing) { // nobody removes an image that is locked
		err = fmt.Errorf("%w: its file %s is missing", ErrInvalid, missing.Path)
	}
	return h, err
}

// errReplaced is of a directory that lost its name while it was opened, if only to
// another image.
var errReplaced = errors.New("replaced")

// hasName says whether a directory still has its name.
func hasName(root *os.Root, dir string) bool {
	opened, err := root.Stat(".")
	if err != nil {
		return false
	}
	named, err := os.Stat(dir)
	return err == nil && os.SameFile(opened, named)
}

// List returns the names of all images, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Remove removes an image that is not in use.
func (s *Store) Remove(name string) error {
	if err := s.spelled(name); err != nil {
		return fmt.Errorf("removing image %q: %w: %w", name, ErrNotFound, err)
	}
	h, err := s.Open(name)
	if errors.Is(err, ErrInvalid) {
		// What is broken is not in use. RemoveAll waits for a store that is a FIFO.
		if _, err := os.Lstat(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("removing image %q: %w", name, err)
		}
		return os.RemoveAll(filepath.Join(s.dir, name))
	}
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("removing image %q: %w; lumina images list shows those that are here", name, ErrNotFound)
	}
	if err != nil {
		return err
	}
	defer h.Close()
	busy, err := flock.TryExclusive(h.lock)
	if err != nil {
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	if busy {
		return fmt.Errorf("removing image %q: %w by %w", name, ErrInUse, &flock.HeldError{Kind: "image", Name: name, PIDs: flock.Holders(h.lock)})
	}
	// Out of sight first, so that a crash leaves no half image.
	trash, err := s.makeTemp(name)
	if err != nil {
		return err
	}
	defer trash.remove()
	if err := os.Rename(h.dir, filepath.Join(trash.dir, "removed")); err != nil {
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	return nil
}

// Install makes an image: build fills a directory, which then takes the place
// of the image of that name, at once. Whatever happens, the store holds the old
// image or the new one.
func (s *Store) Install(ctx context.Context, name string, build func(dir string) error) error {
	return s.install(ctx, name, true, build)
}

// Add is Install for a name that no image has yet: with ErrExists the one that
// has it stays.
func (s *Store) Add(ctx context.Context, name string, build func(dir string) error) error {
	if s.Has(name) {
		return fmt.Errorf("image %q %w", name, ErrExists)
	}
	return s.install(ctx, name, false, build)
}

func (s *Store) install(ctx context.Context, name string, replace bool, build func(dir string) error) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := s.spelled(name); err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	tmp, err := s.makeTemp(name)
	if err != nil {
		return err
	}
	defer tmp.remove()
	fresh := filepath.Join(tmp.dir, "image")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("installing image %q: %w", name, err)
	}
	if err := build(fresh); err != nil {
		return err
	}
	img, err := Read(fresh)
	if err == nil {
		err = s.share(fresh, img)
	}
	if err != nil {
		return fmt.Errorf("installing image %q: %w", name, err)
	}
	err = durable.Place(fresh, filepath.Join(s.dir, name), func(from, to string) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		err := os.Rename(from, to)
		if err != nil { // somebody else may have made it meanwhile
			if err := s.spelled(name); err != nil {
				return err
			}
		}
		if err != nil && !replace && s.Has(name) {
			return ErrExists // somebody else made it meanwhile
		}
		if err != nil && exists(to) {
			// The old one comes out where the new one was made, and goes with it.
			// Who uses it holds its files open.
			err = exchange(from, to)
		}
		return err
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("installing image %q: %w", name, err)
	}
	return nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// tempPrefix begins the names of directories in which images are made or
// removed. No image has such a name.
const tempPrefix = ".tmp-"

// temp is such a directory; its lock says that its maker lives.
type temp struct {
	dir  string
	lock *os.File
}

func (s *Store) makeTemp(name string) (*temp, error) {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the image store: %w", err)
	}
	// A directory that has no lock yet is not to be taken for one of the dead.
	store, err := statefile.OpenDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	defer store.Close()
	if err := flock.Shared(store); err != nil {
		return nil, fmt.Errorf("locking the image store: %w", err)
	}
	dir, err := os.MkdirTemp(s.dir, tempPrefix+name+"-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	lock, err := statefile.Create(filepath.Join(dir, "lock"))
	if err == nil {
		_, err = flock.TryExclusive(lock)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("locking a temporary directory: %w", err)
	}
	return &temp{dir: dir, lock: lock}, nil
}

func (t *temp) remove() {
	os.RemoveAll(t.dir)
	t.lock.Close()
}

// Left is what crashed installations have left.
type Left struct {
	Count int
	Bytes int64 // on the disk
}

func (l *Left) add(dir string) {
	l.Count++
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			l.Bytes += allocated(info)
		}
		return nil
	})
}

// Clean removes what crashed installations left and returns what that was.
func (s *Store) Clean() (left Left, err error) {
	err = s.eachStale(func(dir string) error {
		left.add(dir)
		return os.RemoveAll(dir)
	})
	if err != nil {
		return left, fmt.Errorf("cleaning the image store: %w", err)
	}
	return left, nil
}

// Stale is how much Clean would remove.
func (s *Store) Stale() int { return s.Unfinished().Count }

// Unfinished is what Clean would remove.
func (s *Store) Unfinished() (left Left) {
	_ = s.eachStale(func(dir string) error { left.add(dir); return nil }) // what cannot be read is not counted
	return left
}

// eachStale calls do for each temporary directory whose maker is dead.
// While another process begins an installation there is none.
func (s *Store) eachStale(do func(dir string) error) error {
	store, err := statefile.OpenDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer store.Close()
	if busy, err := flock.TryExclusive(store); busy || err != nil {
		return err
	}
	entries, err := store.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := ifDead(filepath.Join(s.dir, e.Name()), do); err != nil {
			return err
		}
	}
	return nil
}

func ifDead(dir string, do func(dir string) error) error {
	lock, err := statefile.Open(filepath.Join(dir, "lock"))
	if err == nil {
		defer lock.Close()
		if busy, err := flock.TryExclusive(lock); busy || err != nil {
			return err
		}
	}
	return do(dir)
}

// Digest reads a file for its entry in image.json.
func Digest(ctx context.Context, path string) (File, error) {
	f, err := statefile.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	sum := sha256.New()
	n, err := io.CopyBuffer(onlyWriter{sum}, onlyReader{f}, make([]byte, 1<<20))
	if cause := context.Cause(ctx); cause != nil {
		return File{}, cause
	}
	if err != nil {
		return File{}, fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	return File{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// These hide the methods that would make io.CopyBuffer ignore its buffer.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }
