package github

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	gh "github.com/google/go-github/v84/github"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/pace"
)

// maxAssets is how many assets GitHub lets a release have.
const maxAssets = 1000

// Release is a release as far as fetching needs it.
type Release struct {
	Repo   Repo
	Tag    string
	assets map[string]*gh.ReleaseAsset // nil: they are fetched from the pages' addresses
}

// Release finds a release by its tag; the latest when the tag is empty.
//
// Without a token the API is not asked: it allows an address, which many may
// share, 60 requests an hour. Pages' addresses do the same for what is public.
func (c *Client) Release(ctx context.Context, repo Repo, tag string) (*Release, error) {
	what := fmt.Sprintf("release %s of %s", tag, repo)
	if tag == "" {
		what = fmt.Sprintf("latest release of %s", repo)
	}
	if c.options.Token == "" {
		if tag == "" {
			var err error
			if tag, err = c.latestTag(ctx, repo); err != nil {
				return nil, explain(err, what)
			}
		}
		return &Release{Repo: repo, Tag: tag}, nil
	}
	var r *gh.RepositoryRelease
	err := c.retry(ctx, func() (err error) {
		if tag == "" {
			r, _, err = c.api.Repositories.GetLatestRelease(ctx, repo.Owner, repo.Name)
		} else {
			r, _, err = c.api.Repositories.GetReleaseByTag(ctx, repo.Owner, repo.Name, tag)
		}
		return err
	})
	if err != nil {
		return nil, explain(err, what)
	}
	assets, err := c.assets(ctx, repo, r.GetID())
	if err != nil {
		return nil, explain(err, what)
	}
	if err := catalog.CheckTag(r.GetTagName()); err != nil {
		return nil, fmt.Errorf("%s: %w: the release has the %w", what, ErrRefused, err)
	}
	return &Release{Repo: repo, Tag: r.GetTagName(), assets: assets}, nil
}

// latestTag follows where the page of the latest release leads, by one step:
// to .../releases/tag/TAG, or .../releases where there is none.
func (c *Client) latestTag(ctx context.Context, repo Repo) (tag string, err error) {
	page := c.page(repo, "latest")
	err = c.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", userAgent)
		resp, err := c.http.Transport.RoundTrip(req)
		if err != nil {
			return &url.Error{Op: "Get", URL: page, Err: err}
		}
		defer drain(resp.Body)
		if resp.StatusCode/100 != 3 {
			return &statusError{status: resp.Status, code: resp.StatusCode, header: resp.Header}
		}
		to, err := resp.Location()
		if err != nil {
			return fmt.Errorf("%w: a redirect to nowhere: %w", ErrRefused, err)
		}
		dir, last := path.Split(to.Path)
		if path.Base(dir) != "tag" {
			return fmt.Errorf("%w: %w: the repository has no release", ErrRefused, ErrNotFound)
		}
		if err := catalog.CheckTag(last); err != nil {
			return fmt.Errorf("%w: the latest release has the %w", ErrRefused, err)
		}
		tag = last
		return nil
	})
	return tag, err
}

// page is an address below a repository's releases.
func (c *Client) page(repo Repo, parts ...string) string {
	return c.web.JoinPath(append([]string{repo.Owner, repo.Name, "releases"}, parts...)...).String()
}

// assets lists a release's assets by name.
func (c *Client) assets(ctx context.Context, repo Repo, id int64) (map[string]*gh.ReleaseAsset, error) {
	all := map[string]*gh.ReleaseAsset{}
	page := &gh.ListOptions{PerPage: 100}
	for page.Page < maxPages {
		var assets []*gh.ReleaseAsset
		var next int
		err := c.retry(ctx, func() error {
			list, response, err := c.api.Repositories.ListReleaseAssets(ctx, repo.Owner, repo.Name, id, page)
			if err == nil {
				assets, next = list, response.NextPage
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, a := range assets {
			all[a.GetName()] = a
		}
		if next <= page.Page {
			return all, nil
		}
		page.Page = next
	}
	return nil, fmt.Errorf("%w: the list of assets has no end", ErrRefused)
}

// sink is where a download goes.
type sink interface {
	io.Writer
	Size() (int64, error)
	Restart() error
}

type fileSink struct{ f *os.File }

func (s fileSink) Write(p []byte) (int, error) { return s.f.Write(p) }

func (s fileSink) Size() (int64, error) { return s.f.Seek(0, io.SeekEnd) }

func (s fileSink) Restart() error {
	if err := s.f.Truncate(0); err != nil {
		return err
	}
	_, err := s.f.Seek(0, io.SeekStart)
	return err
}

type memorySink struct{ bytes.Buffer }

func (s *memorySink) Size() (int64, error) { return int64(s.Len()), nil }

func (s *memorySink) Restart() error { s.Reset(); return nil }

// Read fetches a small asset.
func (c *Client) Read(ctx context.Context, r *Release, name string, limit int64) ([]byte, error) {
	size := int64(-1) // not known
	if a := r.assets[name]; a != nil {
		size = int64(a.GetSize())
	}
	var s memorySink
	if err := c.fetch(ctx, r, name, size, limit, &s, func(int64) {}); err != nil {
		return nil, err
	}
	return s.Bytes(), nil
}

// Fetch fetches an asset of a size into a file, going on after the bytes that
// it holds. That they are the right ones is for the caller to verify.
func (c *Client) Fetch(ctx context.Context, r *Release, name string, size int64, f *os.File, progress func(done int64)) error {
	return c.fetch(ctx, r, name, size, size, fileSink{f}, progress)
}

// fetch fetches an asset of a size, or, where that is negative, of at most limit bytes.
func (c *Client) fetch(ctx context.Context, r *Release, name string, size, limit int64, to sink, report func(done int64)) error {
	fail := func(err error) error {
		return explain(err, fmt.Sprintf("fetching %s of release %s of %s", name, r.Tag, r.Repo))
	}
	address := c.page(r.Repo, "download", r.Tag, name)
	if r.assets != nil {
		a := r.assets[name]
		if a == nil {
			return fail(ErrNotFound)
		}
		if got := int64(a.GetSize()); got != size || got > limit || a.GetState() != "uploaded" {
			return fail(fmt.Errorf("%w: the asset has %d bytes and is %q, want %d bytes", ErrRefused, got, a.GetState(), min(size, limit)))
		}
		address = a.GetURL()
	}
	attempt, last := 0, int64(0)
	for {
		done, err := to.Size()
		if err == nil && done > limit {
			done, err = 0, to.Restart()
		}
		if err != nil {
			return fail(err)
		}
		if done == size {
			report(done)
			return nil
		}
		if size < 0 && done > 0 {
			if err := to.Restart(); err != nil { // where it ends is not known
				return fail(err)
			}
			done = 0
		}
		if done >= last+progress {
			attempt, last = 0, done
		}
		err = c.fetchOnce(ctx, address, done, size, limit, to, report)
		if err == nil && size < 0 {
			return nil
		}
		if err != nil {
			attempt++
			if err := c.pause(ctx, err, attempt); err != nil {
				return fail(err)
			}
		}
	}
}

// fetchOnce fetches the bytes of an asset from an offset on, as far as it comes.
func (c *Client) fetchOnce(ctx context.Context, address string, offset, size, limit int64, to sink, report func(done int64)) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%w: the server gives no address: %w", ErrRefused, err)
	}
	if err := c.checkURL(u); err != nil {
		return err
	}
	// A connection that brings nothing, or too little, is ended.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	req.Header.Set("Accept", "application/octet-stream")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", userAgent)
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if c.options.Token != "" && c.isServer(u) {
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	idle := time.AfterFunc(c.options.Idle, func() {
		cancel(fmt.Errorf("%w: nothing came for %v", errBroken, c.options.Idle))
	})
	resp, err := c.http.Do(req)
	if idle.Stop(); err != nil {
		return broken(ctx, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK: // from the beginning, asked for or not
		if offset > 0 {
			offset = 0
			if err := to.Restart(); err != nil {
				return err
			}
		}
	case http.StatusPartialContent:
		if !startsAt(resp.Header.Get("Content-Range"), offset, size) {
			return fmt.Errorf("%w: the server sends the range %.80q, asked for was %d- of %d", ErrRefused, resp.Header.Get("Content-Range"), offset, size)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		drain(resp.Body)
		if offset == 0 {
			return fmt.Errorf("%w: the server has no such range", ErrRefused)
		}
		if err := to.Restart(); err != nil {
			return err
		}
		return fmt.Errorf("%w: what was there already is not of this asset", errBroken)
	default:
		drain(resp.Body)
		return &statusError{status: resp.Status, code: resp.StatusCode, header: resp.Header}
	}
	c.reached.Store(true)
	in := pace.NewReader(resp.Body, c.options.Idle, func(slow error) { cancel(fmt.Errorf("%w: %w", errBroken, slow)) })
	buf := make([]byte, 256<<10)
	for {
		n, err := in.Read(buf)
		if int64(n) > limit-offset {
			return fmt.Errorf("%w: the server sends more than the %d bytes that are wanted", ErrRefused, limit)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return fmt.Errorf("writing what comes: %w", err)
		}
		offset += int64(n)
		report(offset)
		if errors.Is(err, io.EOF) {
			if offset < size {
				return fmt.Errorf("%w after %d of %d bytes", errBroken, offset, size)
			}
			return nil
		}
		if err != nil {
			return broken(ctx, err)
		}
	}
}

// broken is an error of the connection, or why it was ended.
func broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var network *url.Error
	if errors.As(err, &network) {
		return err
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

// startsAt says whether a Content-Range is what was asked for.
func startsAt(header string, offset, size int64) bool {
	var from, to int64
	var total string
	if n, err := fmt.Sscanf(header, "bytes %d-%d/%s", &from, &to, &total); n != 3 || err != nil {
		return false
	}
	return from == offset && to == size-1 && (total == "*" || strings.TrimSpace(total) == fmt.Sprint(size))
}
