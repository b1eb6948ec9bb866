package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// tempPrefix begins the names of blobs that are being fetched.
const tempPrefix = "fetch-"

// cache keeps blobs as DIR/blobs/sha256/HEX. Its content is not trusted: readers
// compare digests. A writer holds a shared lock on the directory, which ends with
// its process.
type cache struct {
	dir  string
	lock *os.File
}

func blobDir(cacheDir string) string { return filepath.Join(cacheDir, "blobs", "sha256") }

// openCache opens the cache for writing and removes what killed processes left.
func openCache(cacheDir string) (*cache, error) {
	dir := blobDir(cacheDir)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	if _, err := CleanCache(cacheDir); err != nil {
		return nil, err
	}
	lock, err := statefile.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	if err := flock.Shared(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	return &cache{dir: dir, lock: lock}, nil
}

func (c *cache) close() error { return c.lock.Close() }

func (c *cache) path(h v1.Hash) string { return filepath.Join(c.dir, h.Hex) }

// has says whether a blob is there and whole.
func (c *cache) has(ctx context.Context, h v1.Hash) bool {
	f, err := statefile.Open(c.path(h))
	if err != nil {
		return false
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	got, _, err := v1.SHA256(f)
	return err == nil && got == h
}

// add puts a blob there when r has ended without an error, else nothing.
func (c *cache) add(h v1.Hash, r io.Reader) (err error) {
	tmp, err := os.CreateTemp(c.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = io.Copy(tmp, r)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return durable.Move(tmp.Name(), c.path(h))
}

// alone opens and locks a cache's directory, so that no other process writes to it
// until the file is closed. The file is nil if another process writes to it now (busy),
// or if there is no cache.
func alone(cacheDir string) (dir *os.File, busy bool, err error) {
	dir, err = statefile.OpenDir(blobDir(cacheDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("opening the cache: %w", err)
	}
	if busy, err := flock.TryExclusive(dir); busy || err != nil {
		dir.Close()
		return nil, busy, err
	}
	return dir, false, nil
}

// CleanCache removes from a cache what killed processes were fetching, and
// returns how many blobs that were. While another process fetches it leaves
// all as it is.
func CleanCache(cacheDir string) (int, error) {
	dir, _, err := alone(cacheDir)
	if dir == nil {
		return 0, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return 0, fmt.Errorf("cleaning the cache: %w", err)
	}
	removed := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir.Name(), e.Name())); err != nil {
			return removed, fmt.Errorf("cleaning the cache: %w", err)
		}
		removed++
	}
	return removed, nil
}
