package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// AddLayer makes a layer of the tar archive that write writes, and keeps it in
// the cache.
func AddLayer(cacheDir string, write func(io.Writer) error) (_ Layer, err error) {
	c, err := openCache(cacheDir)
	if err != nil {
		return Layer{}, err
	}
	defer c.close()
	tmp, err := os.CreateTemp(c.dir, tempPrefix)
	if err != nil {
		return Layer{}, fmt.Errorf("making a layer: %w", err)
	}
	defer os.Remove(tmp.Name()) // when it has not got its own name
	defer tmp.Close()
	stored, content := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(tmp, stored), gzip.BestSpeed)
	if err != nil {
		return Layer{}, err
	}
	err = write(io.MultiWriter(z, content))
	if err = errors.Join(err, z.Close()); err != nil {
		return Layer{}, err
	}
	size, err := tmp.Seek(0, io.SeekCurrent)
	if err != nil {
		return Layer{}, fmt.Errorf("making a layer: %w", err)
	}
	l := Layer{MediaType: string(types.OCILayer), Digest: sum(stored), DiffID: sum(content), Size: size}
	if err := errors.Join(tmp.Close(), durable.Move(tmp.Name(), c.path(l.Digest))); err != nil {
		return Layer{}, fmt.Errorf("keeping a layer: %w", err)
	}
	l.Open = c.opener(l.Digest)
	return l, nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

func (c *cache) opener(h v1.Hash) func(context.Context) (io.ReadCloser, error) {
	path := c.path(h)
	return func(context.Context) (io.ReadCloser, error) { return statefile.Open(path) }
}

// CachedLayer is a layer that the cache has whole. It wraps ErrNotFound.
func CachedLayer(ctx context.Context, cacheDir string, l Layer) (Layer, error) {
	c := &cache{dir: blobDir(cacheDir)}
	if l.Digest == (v1.Hash{}) || !c.has(ctx, l.Digest) {
		return Layer{}, fmt.Errorf("layer %s: %w in the cache", l.Digest, ErrNotFound)
	}
	now := time.Now()
	_ = os.Chtimes(c.path(l.Digest), now, now) // for Prune
	l.Open = c.opener(l.Digest)
	return l, nil
}

// Forget removes a blob from the cache, if it is there.
func Forget(cacheDir string, h v1.Hash) error {
	err := os.Remove((&cache{dir: blobDir(cacheDir)}).path(h))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// KeepLayer copies a layer into the cache, if it is not there.
func KeepLayer(ctx context.Context, cacheDir string, l Layer) (Layer, error) {
	if kept, err := CachedLayer(ctx, cacheDir, l); err == nil {
		return kept, nil
	}
	r, err := l.Open(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer r.Close()
	c, err := openCache(cacheDir)
	if err != nil {
		return Layer{}, err
	}
	defer c.close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	if err := c.add(l.Digest, r); err != nil {
		return Layer{}, fmt.Errorf("keeping layer %s: %w", l.Digest, err)
	}
	return CachedLayer(ctx, cacheDir, l)
}
