package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/abdul-abdi/lumina/runtime/printable"
)

// parallelFetches is how many layers are fetched at once.
const parallelFetches = 4

func openRegistry(ctx context.Context, reference string, o Options) (*Image, error) {
	// Registries on the loopback are taken for plain HTTP by the library.
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w: not a local image and not a reference: %w", ErrInvalid, err)
	}
	d, err := remote.Get(ref, append(remoteOptions(ctx, nil), remote.WithPlatform(o.Platform))...)
	if err != nil {
		return nil, explain(err)
	}
	image, err := choose(d, o.Platform)
	if err != nil {
		return nil, explain(err)
	}
	digest, err := image.Digest()
	if err != nil {
		return nil, explain(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, explain(err)
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, explain(err)
	}
	f := newFetcher(ctx, o)
	img := &Image{Digest: digest.String(), Config: config, close: f.close}
	for _, l := range layers {
		layer, err := f.layer(l)
		if err != nil {
			f.close()
			return nil, explain(err)
		}
		img.Layers = append(img.Layers, layer)
	}
	return img, nil
}

// choose is the image of a platform. The library would choose from an index
// too, but not say what there is.
func choose(d *remote.Descriptor, want v1.Platform) (v1.Image, error) {
	if !d.MediaType.IsIndex() {
		return d.Image()
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	chosen, err := pick(m, want)
	if err != nil {
		return nil, err
	}
	return index.Image(chosen.Digest)
}

// explain adds what an error of a registry means. Parts of its text are the
// registry's.
func explain(err error) error {
	err = printable.Error(err)
	var refused *transport.Error
	if errors.As(err, &refused) {
		switch refused.StatusCode {
		case http.StatusNotFound:
			return fmt.Errorf("%w in the registry: %w", ErrNotFound, err)
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("the registry refused access (log in with docker login or skopeo login): %w", err)
		}
	}
	return err
}

// fetcher brings layers into the cache, several at once, from the first use of
// any of them.
type fetcher struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	begin  sync.Once
	starts []func()
	wait   sync.WaitGroup
	// Set by begin.
	cache    *cache
	cacheErr error
}

func newFetcher(ctx context.Context, o Options) *fetcher {
	f := &fetcher{o: o, slots: make(chan struct{}, parallelFetches)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

// close ends what is being fetched; nothing half-fetched is left.
func (f *fetcher) close() error {
	f.cancel()
	f.wait.Wait()
	if f.cache == nil {
		return nil
	}
	return f.cache.close()
}

// start starts all fetches.
func (f *fetcher) start() {
	if f.cache, f.cacheErr = openCache(f.o.CacheDir); f.cacheErr != nil {
		return
	}
	for _, start := range f.starts {
		f.wait.Go(start)
	}
}

func (f *fetcher) layer(l v1.Layer) (Layer, error) {
	digest, err := l.Digest()
	if err != nil {
		return Layer{}, err
	}
	size, err := l.Size()
	if err != nil {
		return Layer{}, err
	}
	mediaType, err := l.MediaType()
	if err != nil {
		return Layer{}, err
	}
	done := make(chan struct{})
	var fetchErr error
	f.starts = append(f.starts, func() {
		defer close(done)
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
			fetchErr = f.fetch(l, digest, size)
		case <-f.ctx.Done():
			fetchErr = context.Cause(f.ctx)
		}
	})
	return Layer{MediaType: string(mediaType), Digest: digest, Size: size, Open: func(ctx context.Context) (io.ReadCloser, error) {
		if f.begin.Do(f.start); f.cacheErr != nil {
			return nil, f.cacheErr
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if fetchErr != nil {
			return nil, fetchErr
		}
		return os.Open(f.cache.path(digest))
	}}, nil
}

// fetch makes sure that a whole blob is in the cache. One that is not is
// replaced.
func (f *fetcher) fetch(l v1.Layer, digest v1.Hash, size int64) error {
	if f.cache.has(f.ctx, digest) {
		f.progress(digest, size, size)
		return nil
	}
	body, err := l.Compressed() // verifies digest and size as it is read
	if err != nil {
		return explain(err)
	}
	defer body.Close()
	defer context.AfterFunc(f.ctx, func() { body.Close() })()
	err = f.cache.add(digest, &progressReader{r: body, report: func(done int64) { f.progress(digest, done, size) }})
	if cause := context.Cause(f.ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", digest, printable.Error(err))
	}
	return nil
}

func (f *fetcher) progress(digest v1.Hash, done, total int64) {
	if f.o.Progress != nil {
		f.o.Progress(digest.String(), done, total)
	}
}

type progressReader struct {
	r      io.Reader
	done   int64
	report func(done int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	p.report(p.done)
	return n, err
}
