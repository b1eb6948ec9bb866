package builder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/uncompress"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// What a build made of each of its steps can be sent to a registry, as an artifact
// whose configuration says which layer is of which key, and taken from there by
// builds on other hosts.
const layerCacheType = "application/vnd.lumina.layers.v1+json"

// maxCachedSteps bounds what is read of such an artifact.
const maxCachedSteps = 10_000

// cachedSteps is the configuration: layers by the keys of steps.
type cachedSteps struct {
	Schema int                    `json:"schema"`
	Steps  map[string]image.Layer `json:"steps"`
}

// LayerCache is what a registry has of the steps of builds.
type LayerCache struct {
	artifact *oci.Artifact
	steps    map[string]image.Layer
	blobs    map[string]oci.Blob // by digest

	mu  sync.Mutex
	err error
}

// Err is why a layer that is there was not taken, and was made anew.
func (c *LayerCache) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// OpenLayerCache finds what PushLayerCache sent. It wraps oci.ErrNotFound. Who can
// write there decides what the steps of a build that takes it have made.
func OpenLayerCache(ctx context.Context, reference string) (*LayerCache, error) {
	a, err := oci.PullArtifact(ctx, reference, layerCacheType, "")
	if err != nil {
		return nil, fmt.Errorf("the layers of %q: %w", reference, err)
	}
	c := &LayerCache{artifact: a, blobs: map[string]oci.Blob{}}
	var steps cachedSteps
	err = json.Unmarshal(a.Config, &steps)
	if err == nil && (steps.Schema != 1 || len(steps.Steps) > maxCachedSteps) {
		err = fmt.Errorf("schema %d with %d steps", steps.Schema, len(steps.Steps))
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("the layers of %q: %w: %w", reference, oci.ErrInvalid, err)
	}
	c.steps = steps.Steps
	for _, b := range a.Blobs {
		c.blobs[b.Digest.String()] = b
	}
	return c, nil
}

// Close ends what was opened.
func (c *LayerCache) Close() { c.artifact.Close() }

// fetch takes the layer of a key into the cache of this host; it wraps
// oci.ErrNotFound.
func (c *LayerCache) fetch(ctx context.Context, key, cacheDir string, limit int64) (oci.Layer, error) {
	described, ok := c.steps[key]
	b, there := c.blobs[described.Digest]
	if !ok || !there {
		return oci.Layer{}, oci.ErrNotFound
	}
	l, err := layerOf(described)
	if err != nil {
		return oci.Layer{}, err
	}
	if b.Size < 0 || b.Size > limit || b.Size != l.Size {
		return oci.Layer{}, fmt.Errorf("layer %s: %w of %d bytes", described.Digest, ErrTooLarge, limit)
	}
	l.Open = func(context.Context) (io.ReadCloser, error) { return b.Open() }
	if l, err = oci.KeepLayer(ctx, cacheDir, l); err != nil {
		return oci.Layer{}, err
	}
	return l, checkDiffID(ctx, l, limit)
}

// checkDiffID looks whether a layer holds what it says.
func checkDiffID(ctx context.Context, l oci.Layer, limit int64) error {
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	plain, err := uncompress.Reader(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	sum, n, err := v1.SHA256(io.LimitReader(interruptible{ctx, plain}, limit+1))
	if err == nil && (n > limit || sum != l.DiffID) {
		err = fmt.Errorf("layer %s: %w: it does not hold what it says", l.Digest, oci.ErrInvalid)
	}
	return err
}

// UsedLayers are the layers of the steps of a build.
type UsedLayers struct {
	mu    sync.Mutex
	steps map[string]oci.Layer
}

func (u *UsedLayers) add(key string, l oci.Layer) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.steps == nil {
		u.steps = map[string]oci.Layer{}
	}
	u.steps[key] = l
}

// PushLayerCache sends what the steps of a build have made to a registry, and
// returns the digest of its manifest.
func PushLayerCache(ctx context.Context, reference string, used *UsedLayers, progress func(done, total int64)) (string, error) {
	steps := cachedSteps{Schema: 1, Steps: map[string]image.Layer{}}
	a := oci.Artifact{ConfigType: layerCacheType}
	seen := map[v1.Hash]bool{}
	for _, key := range slices.Sorted(maps.Keys(used.steps)) {
		l := used.steps[key]
		steps.Steps[key] = describeLayer(l)
		if !seen[l.Digest] {
			seen[l.Digest] = true
			a.Blobs = append(a.Blobs, oci.Blob{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Open: func() (io.ReadCloser, error) { return l.Open(ctx) }})
		}
	}
	var err error
	if a.Config, err = json.Marshal(steps); err != nil {
		return "", err
	}
	digest, err := oci.PushArtifact(ctx, reference, a, progress)
	return digest, cmp.Or(context.Cause(ctx), err)
}

// cachedElsewhere takes the layer of a key from a registry. What cannot be had is
// made anew.
func (p *Place) cachedElsewhere(ctx context.Context, key string) (oci.Layer, bool) {
	for _, c := range p.o.CacheFrom {
		l, err := c.fetch(ctx, key, p.o.CacheDir, p.o.MaxSize)
		if err == nil {
			err = p.Keep(key, l)
		}
		if err == nil {
			return l, true
		}
		if !errors.Is(err, oci.ErrNotFound) && ctx.Err() == nil {
			c.mu.Lock()
			c.err = cmp.Or(c.err, err)
			c.mu.Unlock()
		}
	}
	return oci.Layer{}, false
}

// brokenLayer is an error about what a layer holds.
type brokenLayer struct {
	error
	digest v1.Hash
}

func (b *brokenLayer) Unwrap() error { return b.error }

// forgetBroken forgets a layer that an error is about: a guest whose agent has been
// replaced gave it for its step, and what the cache has of the step would fail every
// later build.
func forgetBroken(ctx context.Context, o Options, about error) error {
	broken, ok := errors.AsType[*brokenLayer](about)
	if !ok {
		return nil
	}
	used, err := usedLayers(o.Store)
	if err == nil && !used[broken.digest.String()] {
		err = oci.Forget(o.CacheDir, broken.digest)
	}
	return errors.Join(err, forgetSteps(ctx, o.CacheDir, func(l oci.Layer) bool { return l.Digest != broken.digest }))
}
