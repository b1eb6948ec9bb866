package github

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	gh "github.com/google/go-github/v84/github"

	"github.com/abdul-abdi/lumina/runtime/pace"
)

// File is a file to publish.
type File struct {
	Path   string
	Name   string // of the asset
	Size   int64
	SHA256 string
}

// PublishOptions says what Publish may do.
type PublishOptions struct {
	// Replace other files of the same names; else they are an error.
	Replace bool
	// Draft leaves a new release a draft, which others do not see.
	Draft bool
	// DryRun looks and changes nothing.
	DryRun bool
	// Notes are the text of a new release.
	Notes    string
	Progress func(name string, done, total int64)
}

// Published is what Publish did, or in a dry run would do, by names of assets.
type Published struct {
	URL      string   `json:"url,omitempty"`
	Uploaded []string `json:"uploaded"`
	Replaced []string `json:"replaced"`
	Kept     []string `json:"kept"`
}

// Publish makes the files assets of the release of a tag, which is made if
// there is none. It can be repeated: what is there already is kept. A new
// release is a draft until all its files are there, which come in their order.
func (c *Client) Publish(ctx context.Context, repo Repo, tag string, files []File, o PublishOptions) (Published, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	done := Published{Uploaded: []string{}, Replaced: []string{}, Kept: []string{}}
	fail := func(err error) (Published, error) {
		return done, explain(err, fmt.Sprintf("publishing release %s of %s", tag, repo))
	}
	if len(files) > maxAssets {
		return fail(fmt.Errorf("%d files: a release has at most %d", len(files), maxAssets))
	}
	release, err := c.find(ctx, repo, tag)
	if err != nil {
		return fail(err)
	}
	assets := map[string]*gh.ReleaseAsset{}
	if release != nil {
		if assets, err = c.assets(ctx, repo, release.GetID()); err != nil {
			return fail(err)
		}
		done.URL = release.GetHTMLURL()
	}
	// All that stands in the way, before anything changes.
	var conflicts []string
	for _, f := range files {
		a := assets[f.Name]
		if a == nil || a.GetState() != "uploaded" {
			continue
		}
		same, err := c.isSame(ctx, repo, tag, a, f)
		if err != nil {
			return fail(err)
		}
		if !same {
			conflicts = append(conflicts, f.Name)
		}
	}
	if len(conflicts) > 0 && !o.Replace {
		return fail(fmt.Errorf("it has other files of the names %s; use another tag, or --replace", strings.Join(conflicts, ", ")))
	}
	if release == nil && !o.DryRun {
		if release, err = c.create(ctx, repo, tag, o.Notes); err != nil {
			return fail(err)
		}
		done.URL = release.GetHTMLURL()
	}
	for _, f := range files {
		list := &done.Uploaded
		old := assets[f.Name]
		if old != nil && old.GetState() == "uploaded" {
			list = &done.Replaced
			if !slices.Contains(conflicts, f.Name) {
				done.Kept = append(done.Kept, f.Name)
				continue
			}
		}
		if !o.DryRun {
			if err := c.put(ctx, repo, release, f, old, o.Progress); err != nil {
				return fail(explain(err, "uploading "+f.Name))
			}
		}
		*list = append(*list, f.Name)
	}
	if o.DryRun || o.Draft || !release.GetDraft() {
		return done, nil
	}
	err = c.retry(ctx, func() error {
		r, _, err := c.api.Repositories.EditRelease(ctx, repo.Owner, repo.Name, release.GetID(), &gh.RepositoryRelease{Draft: gh.Ptr(false)})
		if err == nil {
			done.URL = r.GetHTMLURL()
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	return done, nil
}

// find finds the release of a tag; nil when there is none. A draft is in the
// list only.
func (c *Client) find(ctx context.Context, repo Repo, tag string) (*gh.RepositoryRelease, error) {
	var found *gh.RepositoryRelease
	err := c.retry(ctx, func() (err error) {
		found, _, err = c.api.Repositories.GetReleaseByTag(ctx, repo.Owner, repo.Name, tag)
		return err
	})
	if _, code := headerOf(err); code != http.StatusNotFound {
		return found, err
	}
	page := &gh.ListOptions{PerPage: 100}
	for {
		var releases []*gh.RepositoryRelease
		var next int
		err := c.retry(ctx, func() error {
			list, response, err := c.api.Repositories.ListReleases(ctx, repo.Owner, repo.Name, page)
			if err == nil {
				releases, next = list, response.NextPage
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, r := range releases {
			if r.GetTagName() == tag {
				return r, nil
			}
		}
		if next <= page.Page || next > maxPages {
			return nil, nil
		}
		page.Page = next
	}
}

// create makes a draft. One whose answer was lost is found again rather than
// made twice.
func (c *Client) create(ctx context.Context, repo Repo, tag, notes string) (*gh.RepositoryRelease, error) {
	for attempt := 1; ; attempt++ {
		r, _, err := c.api.Repositories.CreateRelease(ctx, repo.Owner, repo.Name, &gh.RepositoryRelease{
			TagName: gh.Ptr(tag), Name: gh.Ptr(tag), Body: gh.Ptr(notes), Draft: gh.Ptr(true),
		})
		if err == nil {
			return r, nil
		}
		if err := c.pause(ctx, err, attempt); err != nil {
			return nil, err
		}
		if r, err := c.find(ctx, repo, tag); r != nil || err != nil {
			return r, err
		}
	}
}

// isSame says whether an asset is a file. Servers that tell no digest are asked
// for the whole asset.
func (c *Client) isSame(ctx context.Context, repo Repo, tag string, a *gh.ReleaseAsset, f File) (bool, error) {
	if int64(a.GetSize()) != f.Size {
		return false, nil
	}
	if digest, ok := strings.CutPrefix(a.GetDigest(), "sha256:"); ok {
		return digest == f.SHA256, nil
	}
	r := &Release{Repo: repo, Tag: tag, assets: map[string]*gh.ReleaseAsset{f.Name: a}}
	tmp, err := os.CreateTemp("", "lumina-asset-")
	if err != nil {
		return false, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := c.Fetch(ctx, r, f.Name, f.Size, tmp, func(int64) {}); err != nil {
		return false, err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, tmp); err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == f.SHA256, nil
}

// put uploads a file in place of old, which may be nil. An upload whose end is
// not known is looked for before it is made again.
func (c *Client) put(ctx context.Context, repo Repo, release *gh.RepositoryRelease, f File, old *gh.ReleaseAsset, progress func(name string, done, total int64)) error {
	replaced := old.GetID()
	for attempt := 1; ; attempt++ {
		err := c.replace(ctx, repo, release, f, old, progress)
		if err == nil {
			return nil
		}
		// A name that is taken may be so by an upload of ours.
		taken := isTaken(err)
		if !taken || attempt >= attempts {
			if err := c.pause(ctx, err, attempt); err != nil {
				return err
			}
		}
		assets, listErr := c.assets(ctx, repo, release.GetID())
		if listErr != nil {
			return listErr
		}
		old = assets[f.Name]
		if taken && old == nil {
			return err // GitHub wants another name, or none at all
		}
		if old == nil || old.GetState() != "uploaded" {
			continue
		}
		same, sameErr := c.isSame(ctx, repo, release.GetTagName(), old, f)
		if sameErr != nil || same {
			return sameErr
		}
		if !errors.Is(err, errStored) && old.GetID() != replaced {
			return fmt.Errorf("somebody else has just published another file of this name: %w", err)
		}
	}
}

func isTaken(err error) bool {
	_, code := headerOf(err)
	return code == http.StatusUnprocessableEntity
}

// errStored is wrapped when the server has stored something else than was sent.
var errStored = errors.New("the server stored another file")

// replace uploads a file once.
func (c *Client) replace(ctx context.Context, repo Repo, release *gh.RepositoryRelease, f File, old *gh.ReleaseAsset, progress func(name string, done, total int64)) error {
	if old != nil {
		_, err := c.api.Repositories.DeleteReleaseAsset(ctx, repo.Owner, repo.Name, old.GetID())
		if _, code := headerOf(err); err != nil && code != http.StatusNotFound {
			return err
		}
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	// Relative to the client's address: the token goes nowhere else, whatever
	// upload_url the server gives.
	address := fmt.Sprintf("repos/%s/%s/releases/%d/assets?name=%s", repo.Owner, repo.Name, release.GetID(), url.QueryEscape(f.Name))
	body := &pace.Counter{R: io.LimitReader(file, f.Size), Report: func(n int64) { progress(f.Name, n, f.Size) }}
	req, err := c.api.NewUploadRequest(address, body, f.Size, "application/octet-stream")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	asset := new(gh.ReleaseAsset)
	if _, err := c.api.Do(ctx, req, asset); err != nil {
		return err
	}
	if asset.GetState() != "uploaded" || int64(asset.GetSize()) != f.Size || asset.GetName() != f.Name ||
		asset.GetDigest() != "" && asset.GetDigest() != "sha256:"+f.SHA256 {
		return fmt.Errorf("%w: %w: %q, %d bytes, %s, %s in place of %d bytes, sha256:%s", errBroken, errStored,
			asset.GetName(), asset.GetSize(), asset.GetState(), asset.GetDigest(), f.Size, f.SHA256)
	}
	return nil
}
