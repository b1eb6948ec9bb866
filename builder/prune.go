package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// PruneOptions says what of a cache to remove.
type PruneOptions struct {
	Store    *image.Store
	CacheDir string
	// Age removes what was not used for longer; 0: nothing for its age.
	Age time.Duration
	// Size removes the oldest until the rest has at most so many bytes; 0: no
	// limit.
	Size int64
}

// Prune removes layers from the cache, oldest first, and the results of steps
// that go with them. Layers of an installed image stay. It returns how many
// bytes were freed.
func Prune(ctx context.Context, o PruneOptions) (freed int64, err error) {
	keep, err := usedLayers(o.Store)
	if err != nil {
		return 0, err
	}
	freed, err = oci.Prune(ctx, o.CacheDir, o.Age, o.Size, func(digest string) bool { return keep[digest] })
	if err != nil {
		return freed, err
	}
	return freed, forgetSteps(ctx, o.CacheDir, func(l oci.Layer) bool { return oci.HasLayer(o.CacheDir, l.Digest) })
}

// Usage is what layers take of the disk.
type Usage struct {
	Count         int
	Bytes, Unused int64 // Unused are those of layers that no image has
}

// CacheUsage says what the cache has.
func CacheUsage(store *image.Store, cacheDir string) (u Usage, err error) {
	used, err := usedLayers(store)
	if err != nil {
		return u, err
	}
	err = oci.CachedBlobs(cacheDir, func(digest string, size int64) {
		u.Count++
		u.Bytes += size
		if !used[digest] {
			u.Unused += size
		}
	})
	return u, err
}

func usedLayers(store *image.Store) (map[string]bool, error) {
	names, err := store.List()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, name := range names {
		h, err := store.Open(name)
		if errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrInvalid) {
			continue // removed in the meantime, or of no use
		}
		if err != nil {
			return nil, err
		}
		for _, l := range h.Layers {
			used[l.Digest] = true
		}
		h.Close()
	}
	return used, nil
}

// forgetSteps removes what is known of steps but those whose layer is to be kept.
func forgetSteps(ctx context.Context, cacheDir string, keep func(oci.Layer) bool) error {
	files, err := filepath.Glob(filepath.Join(cacheDir, "steps", "*.json"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		b, err := statefile.Read(f, maxStep)
		if err != nil && !errors.Is(err, statefile.ErrDamaged) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("pruning the cache: %w", err)
		}
		var l image.Layer
		layer, err := oci.Layer{}, json.Unmarshal(b, &l)
		if err == nil {
			layer, err = layerOf(l)
		}
		if err == nil && keep(layer) {
			continue
		}
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("pruning the cache: %w", err)
		}
	}
	return nil
}
