package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// isDigest says whether a file of the cache is called as a blob is.
func isDigest(name string) bool {
	_, err := v1.NewHash("sha256:" + name)
	return err == nil
}

// HasLayer says whether the cache has something of that digest, which may be
// damaged.
func HasLayer(cacheDir string, digest v1.Hash) bool {
	_, err := os.Stat((&cache{dir: blobDir(cacheDir)}).path(digest))
	return err == nil
}

// CachedBlobs calls visit for each blob of the cache that is complete.
func CachedBlobs(cacheDir string, visit func(digest string, size int64)) error {
	entries, err := os.ReadDir(blobDir(cacheDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the cache: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), tempPrefix) {
			continue // removed meanwhile, or being fetched
		}
		visit("sha256:"+e.Name(), info.Size())
	}
	return nil
}

// Prune removes blobs that were not used for longer than age and, the oldest
// first, those beyond size bytes; either may be 0 for no limit. What keep says
// stays. While another process writes to the cache, nothing is removed.
func Prune(ctx context.Context, cacheDir string, age time.Duration, size int64, keep func(digest string) bool) (freed int64, err error) {
	dir, busy, err := alone(cacheDir)
	if busy {
		return 0, errors.New("pruning the cache: another lumina is writing to it; try again later")
	}
	if dir == nil {
		return 0, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return 0, fmt.Errorf("pruning the cache: %w", err)
	}
	var blobs []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !isDigest(e.Name()) {
			continue // being fetched, or no blob
		}
		total += info.Size()
		if !keep("sha256:" + e.Name()) {
			blobs = append(blobs, info)
		}
	}
	slices.SortFunc(blobs, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, b := range blobs {
		if err := context.Cause(ctx); err != nil {
			return freed, err
		}
		old := age > 0 && time.Since(b.ModTime()) > age
		if !old && (size == 0 || total-freed <= size) {
			continue
		}
		if err := os.Remove(filepath.Join(dir.Name(), b.Name())); err != nil {
			return freed, fmt.Errorf("pruning the cache: %w", err)
		}
		freed += b.Size()
	}
	return freed, nil
}
