package oci

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// parallelFetches is how many layers are fetched at once.
const parallelFetches = 4

// inRegistry is a reference as the library has it, which must be of a registry.
// Registries on the loopback are taken for plain HTTP by the library.
func inRegistry(text string) (name.Reference, error) {
	r, err := reference.Parse(text)
	if err != nil {
		return nil, err
	}
	if r.Kind != reference.Registry {
		return nil, fmt.Errorf("%q is %w of a registry: write HOST/NAME:TAG", text, reference.ErrInvalid)
	}
	return name.ParseReference(r.Rest)
}

func openRegistry(ctx context.Context, text string, o Options) (*Image, error) {
	ref, err := inRegistry(text)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, ref.Context())
	if err != nil {
		return nil, err
	}
	raw, d, err := c.manifest(ctx, cmp.Or(o.Digest, ref.Identifier()))
	if err != nil {
		c.close()
		return nil, err
	}
	f := newFetcher(ctx, c, o)
	img, err := readImage(ctx, registryPlace{f}, raw, d, o)
	if err != nil {
		f.close()
		return nil, err
	}
	img.close = f.close
	return img, nil
}

// registryPlace is a repository as readImage wants it.
type registryPlace struct{ f *fetcher }

func (p registryPlace) manifest(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	b, _, err := p.f.client.manifest(ctx, d.Digest.String())
	return b, err
}

func (p registryPlace) config(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fmt.Errorf("%w: a configuration of %d bytes", ErrInvalid, d.Size)
	}
	r := p.f.client.blob(ctx, d)
	defer r.Close()
	return readBounded(r, "the configuration")
}

func (p registryPlace) layer(d v1.Descriptor) Layer { return p.f.layer(d) }

// explain says what an error of a registry means. Parts of its text are the
// registry's.
func explain(err error) error {
	var refused *transport.Error
	var foreign x509.UnknownAuthorityError
	var host x509.HostnameError
	var expired x509.CertificateInvalidError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &foreign):
		return fmt.Errorf("the registry's certificate is of an authority that this host does not know; SSL_CERT_FILE names a file with others: %w", printable.Error(err))
	case errors.As(err, &host), errors.As(err, &expired):
		return fmt.Errorf("the registry's certificate is not valid: %w", printable.Error(err))
	case errors.As(err, &refused):
		said := printable.Error(refusal{refused})
		switch refused.StatusCode {
		case http.StatusNotFound:
			return fmt.Errorf("%w in the registry: %w", ErrNotFound, said)
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("the registry refused access (log in with docker login or skopeo login): %w", said)
		}
		return fmt.Errorf("the registry: %w", said)
	case errors.As(err, &noTLS):
		return fmt.Errorf("the registry does not speak HTTPS, and plain HTTP is only for this host and private networks: %w", printable.Error(err))
	}
	return printable.Error(err)
}

// refusal is what a registry answered, without the details that it adds for programs.
type refusal struct{ err *transport.Error }

func (r refusal) Unwrap() error { return r.err }

func (r refusal) Error() string {
	var said []string
	for _, d := range r.err.Errors {
		said = append(said, string(d.Code)+": "+d.Message)
	}
	if len(said) == 0 {
		said = append(said, fmt.Sprintf("status %d %s", r.err.StatusCode, http.StatusText(r.err.StatusCode)))
	}
	where := ""
	if r.err.Request != nil {
		where = fmt.Sprintf("%s %s://%s%s: ", r.err.Request.Method, r.err.Request.URL.Scheme, r.err.Request.URL.Host, r.err.Request.URL.Path) // no query: it may hold a secret
	}
	return where + strings.Join(said, "; ")
}

// fetcher brings layers into the cache, several at once, from the first use of
// any of them.
type fetcher struct {
	o      Options
	client *client
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

func newFetcher(ctx context.Context, c *client, o Options) *fetcher {
	f := &fetcher{o: o, client: c, slots: make(chan struct{}, parallelFetches)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

// close ends what is being fetched; nothing half-fetched is left.
func (f *fetcher) close() error {
	f.cancel()
	f.wait.Wait()
	f.client.close()
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

func (f *fetcher) layer(d v1.Descriptor) Layer {
	done := make(chan struct{})
	var fetchErr error
	f.starts = append(f.starts, func() {
		defer close(done)
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
			fetchErr = f.fetch(d)
		case <-f.ctx.Done():
			fetchErr = context.Cause(f.ctx)
		}
	})
	return Layer{MediaType: string(d.MediaType), Digest: d.Digest, Size: d.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
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
		return statefile.Open(f.cache.path(d.Digest))
	}}
}

// fetch makes sure that a whole blob is in the cache. One that is not is
// replaced.
func (f *fetcher) fetch(d v1.Descriptor) error {
	if f.cache.has(f.ctx, d.Digest) {
		f.progress(d.Digest, d.Size, d.Size)
		return nil
	}
	body := f.client.blob(f.ctx, d)
	defer body.Close()
	err := f.cache.add(d.Digest, &pace.Counter{R: body, Report: func(done int64) { f.progress(d.Digest, done, d.Size) }})
	if cause := context.Cause(f.ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", d.Digest, err)
	}
	return nil
}

func (f *fetcher) progress(digest v1.Hash, done, total int64) {
	if f.o.Progress != nil {
		f.o.Progress(digest.String(), done, total)
	}
}
