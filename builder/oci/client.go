package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/abdul-abdi/lumina/builder/spelling"
	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/redirects"
)

// client reads from one repository of a registry.
type client struct {
	http *http.Client
	repo name.Repository
	pool *http.Transport
	// patience is how long a manifest may take, however often it is asked for.
	patience time.Duration
}

// How long a registry may be silent: before it answers, and within an answer, of
// which a part has to come in that time (package pace).
const (
	answerTimeout = 60 * time.Second
	idleTimeout   = 60 * time.Second
	// commitTimeout is for the answer to what was sent: a registry may read a layer of
	// gigabytes again before it takes it.
	commitTimeout = 10 * time.Minute
	// manifestTimeout is for all of a manifest: of 8 MiB at most, with the pauses that a
	// registry asks for.
	manifestTimeout = 5 * time.Minute
)

// dial logs in to a repository, for reading.
func dial(ctx context.Context, repo name.Repository) (*client, error) {
	auth, err := logins{}.ResolveContext(ctx, repo)
	if err != nil {
		return nil, err
	}
	pool := newPool(repo.Registry, answerTimeout)
	login, cancel := context.WithTimeoutCause(ctx, manifestTimeout, fmt.Errorf("the registry has not let us in for %v", manifestTimeout))
	defer cancel()
	t, err := transport.NewWithContext(login, repo.Registry, auth, patient{pool}, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		pool.CloseIdleConnections()
		return nil, explain(orCause(login, err))
	}
	return &client{http: &http.Client{Transport: t}, repo: repo, pool: pool, patience: manifestTimeout}, nil
}

// newPool makes the connections to a registry, which answers a request within a time.
func newPool(registry name.Registry, answer time.Duration) *http.Transport {
	pool := http.DefaultTransport.(*http.Transport).Clone()
	pool.ResponseHeaderTimeout = answer
	redirects.Confine(pool, &url.URL{Scheme: registry.Scheme(), Host: registry.RegistryStr()})
	return pool
}

func (c *client) close() { c.pool.CloseIdleConnections() }

// get asks for what is at a path of the repository, from a byte on.
func (c *client) get(ctx context.Context, path, accept string, from int64) (*http.Response, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s", c.repo.Scheme(), c.repo.RegistryStr(), c.repo.RepositoryStr(), path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	req.Header.Set("Accept-Encoding", "identity")
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

var manifestTypes = []string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
	string(types.DockerManifestSchema1Signed), string(types.DockerManifestSchema1),
}

// manifest reads a manifest, by its digest or a tag, and describes what it is.
func (c *client) manifest(ctx context.Context, identifier string) ([]byte, v1.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, fmt.Errorf("the manifest has not come for %v", c.patience))
	defer cancel()
	resp, err := c.get(ctx, "manifests/"+identifier, strings.Join(manifestTypes, ","), 0)
	if err != nil {
		err = explain(orCause(ctx, err))
		if _, isDigest := v1.NewHash(identifier); isDigest != nil && errors.Is(err, ErrNotFound) {
			err = c.nearTags(ctx, identifier, err)
		}
		return nil, v1.Descriptor{}, err
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, "the manifest")
	if err != nil {
		return nil, v1.Descriptor{}, orCause(ctx, err)
	}
	d := describe(b, resp.Header.Get("Content-Type"))
	// Of a signed manifest of the first schema the digest is that of a part.
	if said, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil && said.Algorithm == "sha256" && said != d.Digest && d.MediaType != types.DockerManifestSchema1 {
		return nil, v1.Descriptor{}, fmt.Errorf("%w: the registry says that the manifest has digest %s, and sends one with %s", ErrInvalid, said, d.Digest)
	}
	if want, err := v1.NewHash(identifier); err == nil && want != d.Digest {
		return nil, v1.Descriptor{}, fmt.Errorf("%w: manifest %s has digest %s", ErrInvalid, want, d.Digest)
	}
	return b, d, nil
}

// tagsTimeout bounds the question which tags there are: it only makes an error better.
const tagsTimeout = 5 * time.Second

// nearTags adds to an error of an unknown tag those that may have been meant.
func (c *client) nearTags(ctx context.Context, tag string, err error) error {
	ctx, cancel := context.WithTimeout(ctx, tagsTimeout)
	defer cancel()
	resp, listErr := c.get(ctx, "tags/list?n=10000", "", 0)
	if listErr != nil {
		return err
	}
	defer resp.Body.Close()
	var list struct {
		Tags []string `json:"tags"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list) != nil {
		return err
	}
	list.Tags = slices.DeleteFunc(list.Tags, func(t string) bool { return !isTag(t) })
	const most = 5
	near := spelling.Nearest(tag, list.Tags, most)
	if len(near) == 0 && len(list.Tags) <= most {
		near = list.Tags
	}
	if len(near) == 0 {
		return err
	}
	return fmt.Errorf("%w; it has: %s", err, strings.Join(near, ", "))
}

// isTag says whether a registry's tag is one: it is printed.
func isTag(s string) bool {
	_, err := name.NewTag("x:" + s)
	return err == nil && s != ""
}

// orCause is why ctx ended, in place of what that broke.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// blob reads a blob. Its end is io.EOF only when digest and size are right; where
// the connection breaks it is read on.
func (c *client) blob(ctx context.Context, d v1.Descriptor) io.ReadCloser {
	return newBlobReader(ctx, d, func(ctx context.Context, from int64) (*http.Response, error) {
		return c.get(ctx, "blobs/"+d.Digest.String(), "", from)
	})
}

// patient repeats requests that a server is too busy for, or whose connection
// fails before there is an answer.
type patient struct{ next http.RoundTripper }

// How often a request is made at most: of a server that answers, and of one that
// does not.
const (
	busyTries   = 6
	silentTries = 3
	maxPause    = 5 * time.Second
	maxAsked    = 30 * time.Second // that a server can ask to wait
)

func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := p.next.RoundTrip(req)
		again := err != nil && try < silentTries && isTransient(err) || err == nil && try < busyTries && isBusy(resp.StatusCode)
		if !again || req.Body != nil && req.Body != http.NoBody || req.Method != http.MethodGet && req.Method != http.MethodHead {
			return resp, err
		}
		wait := pauseBefore(try)
		if resp != nil {
			if asked, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && asked >= 0 {
				wait = min(max(wait, time.Duration(asked)*time.Second), maxAsked)
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
			resp.Body.Close()
		}
		if err := pace.Wait(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

func isBusy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func isTransient(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &timeout) && timeout.Timeout()
}

// pauseBefore is 0.1 s after the first try, and about twice as long after each.
func pauseBefore(try int) time.Duration {
	pause := min(100*time.Millisecond<<min(try-1, 10), maxPause)
	return pause + rand.N(pause/4)
}
