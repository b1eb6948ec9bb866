package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// parallelFetches is how many layers are fetched at once.
const parallelFetches = 4

func openRegistry(ctx context.Context, reference string, o Options) (*Image, error) {
	// Registries on the loopback are taken for plain HTTP by the library.
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w: not a local image and not a reference: %w", ErrInvalid, err)
	}
	d, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(o.Platform))
	if err != nil {
		return nil, explain(err)
	}
	if d.MediaType.IsIndex() {
		// Chosen here, so that what there is can be told.
		index, err := d.ImageIndex()
		if err != nil {
			return nil, explain(err)
		}
		m, err := index.IndexManifest()
		if err != nil {
			return nil, explain(err)
		}
		if _, err := pick(m, o.Platform); err != nil {
			return nil, err
		}
	}
	image, err := d.Image()
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

// explain adds what an error of a registry means.
func explain(err error) error {
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
	return nil
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
	path := filepath.Join(f.o.CacheDir, "blobs", "sha256", digest.Hex)
	done := make(chan struct{})
	var fetchErr error
	f.starts = append(f.starts, func() {
		defer close(done)
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
			fetchErr = f.fetch(l, digest, size, path)
		case <-f.ctx.Done():
			fetchErr = context.Cause(f.ctx)
		}
	})
	return Layer{MediaType: string(mediaType), Digest: digest, Size: size, Open: func(ctx context.Context) (io.ReadCloser, error) {
		f.begin.Do(func() {
			for _, start := range f.starts {
				f.wait.Go(start)
			}
		})
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if fetchErr != nil {
			return nil, fetchErr
		}
		return os.Open(path)
	}}, nil
}

// fetch makes sure that a blob is in the cache. The reader of what is there
// compares its digest; what is not it is removed and fetched again.
func (f *fetcher) fetch(l v1.Layer, digest v1.Hash, size int64, path string) error {
	if cached, err := digestOf(path); err == nil && cached == digest {
		f.progress(digest, size, size)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the cache: %w", err)
	}
	body, err := l.Compressed() // verifies digest and size as it is read
	if err != nil {
		return explain(err)
	}
	defer body.Close()
	defer context.AfterFunc(f.ctx, func() { body.Close() })()
	tmp, err := os.CreateTemp(filepath.Dir(path), "fetch-*")
	if err != nil {
		return fmt.Errorf("caching layer %s: %w", digest, err)
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, &progressReader{r: body, report: func(done int64) { f.progress(digest, done, size) }})
	err = errors.Join(err, tmp.Close())
	if cause := context.Cause(f.ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", digest, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("caching layer %s: %w", digest, err)
	}
	return nil
}

func (f *fetcher) progress(digest v1.Hash, done, total int64) {
	if f.o.Progress != nil {
		f.o.Progress(digest.String(), done, total)
	}
}

func digestOf(path string) (v1.Hash, error) {
	f, err := os.Open(path)
	if err != nil {
		return v1.Hash{}, err
	}
	defer f.Close()
	h, _, err := v1.SHA256(f)
	return h, err
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
