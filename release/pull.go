package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/pack"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// From is where releases are fetched from and whose signatures are trusted.
type From struct {
	Client *github.Client
	Repo   github.Repo
	Tag    string // the latest release when empty
	Keys   sign.Keys
	// Seen is a file that remembers the newest catalog of each publisher: an older
	// one is refused, unless AllowOlder. "" remembers none.
	Seen       string
	AllowOlder bool
}

// Catalog fetches the catalog of a release and verifies its signature.
func (f From) Catalog(ctx context.Context) (*catalog.Catalog, error) {
	c, _, err := f.open(ctx)
	return c, err
}

func (f From) open(ctx context.Context) (*catalog.Catalog, *github.Release, error) {
	if err := f.Keys.Check(); err != nil {
		return nil, nil, err
	}
	if f.Tag != "" {
		if err := catalog.CheckTag(f.Tag); err != nil {
			return nil, nil, err
		}
	}
	r, err := f.Client.Release(ctx, f.Repo, f.Tag)
	if err != nil {
		return nil, nil, err
	}
	signature, err := f.Client.Read(ctx, r, catalog.Signature, sign.MaxSignature)
	if err != nil {
		return nil, nil, err
	}
	text, err := f.Client.Read(ctx, r, catalog.Name, catalog.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Keys.Verify(text, signature, comment(r.Tag, catalog.Name)); err != nil {
		return nil, nil, fmt.Errorf("%s of release %s of %s: %w", catalog.Name, r.Tag, f.Repo, err)
	}
	c, err := catalog.Parse(text)
	if err == nil && c.Tag != r.Tag {
		err = fmt.Errorf("it is of release %s", c.Tag)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s of release %s of %s: %w", catalog.Name, r.Tag, f.Repo, err)
	}
	if f.Seen != "" {
		if err := f.remember(ctx, c, sign.KeyID(signature)); err != nil {
			return nil, nil, err
		}
	}
	return c, r, nil
}

// PullOptions says what to pull and where to.
type PullOptions struct {
	ID           string // of the catalog: an id, or a name
	Architecture string // Go's name, of an image that is given by name
	As           string // the name it gets; its own when empty
	Store        *image.Store
	CacheDir     string // where downloads are kept until they are complete
	// MaxSize bounds what the image takes, in bytes; 0: half of what is free.
	MaxSize int64
	// Force takes the place of an image of that name that is another one.
	Force    bool
	Progress Progress
}

// Pulled is an image that was asked for.
type Pulled struct {
	*image.Image
	Name string
	// Fresh: it was not there before.
	Fresh bool
}

// Pull fetches an image, verifies it and installs it. A download that was
// interrupted goes on where it was; one that is refused leaves nothing.
func (f From) Pull(ctx context.Context, o PullOptions) (Pulled, error) {
	if o.Progress == nil {
		o.Progress = func(string, string, int64, int64) {}
	}
	c, r, err := f.open(ctx)
	if err != nil {
		return Pulled{}, err
	}
	entry, err := c.Find(o.ID, o.Architecture)
	if err != nil {
		return Pulled{}, err
	}
	if o.As == "" {
		o.As = entry.Name
	}
	cache, err := OpenCache(ctx, o.CacheDir)
	if err != nil {
		return Pulled{}, err
	}
	defer cache.Close()
	// Once the cache is ours: another process may have had the same intention.
	if img, err := installed(ctx, o, entry); img != nil || err != nil {
		return Pulled{Image: img, Name: o.As}, err
	}
	limit, err := o.Store.MaxSize(o.MaxSize)
	if err != nil {
		return Pulled{}, err
	}
	if max(entry.Size, entry.DownloadSize) > limit {
		return Pulled{}, fmt.Errorf("pulling %s of release %s: it has %d bytes, and %d to fetch: %w of %d", entry.ID, c.Tag, entry.Size, entry.DownloadSize, ErrTooLarge, limit)
	}
	files, err := cache.fetch(ctx, f.Client, r, entry, o.Progress)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return Pulled{}, err
	}
	img, err := install(ctx, o, entry, files)
	if err == nil || errors.Is(err, pack.ErrInvalid) || errors.Is(err, image.ErrInvalid) {
		cache.remove(entry)
	}
	if err != nil {
		return Pulled{}, fmt.Errorf("pulling %s of release %s: %w", entry.ID, c.Tag, err)
	}
	return Pulled{Image: img, Name: o.As, Fresh: true}, nil
}

// installed returns the image if it is there already.
func installed(ctx context.Context, o PullOptions, entry *catalog.Image) (*image.Image, error) {
	if o.Force {
		return nil, nil
	}
	h, err := o.Store.Open(o.As)
	if errors.Is(err, image.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w; replace it with --force", err)
	}
	defer h.Close()
	metadata, err := image.Digest(ctx, h.Path("image.json"))
	if err != nil {
		return nil, err
	}
	if metadata != entry.Files["image.json"] {
		return nil, fmt.Errorf("there is another image %q here; replace it with --force", o.As)
	}
	return h.Image, nil
}

func install(ctx context.Context, o PullOptions, entry *catalog.Image, parts []*os.File) (*image.Image, error) {
	readers := make([]io.Reader, len(parts))
	for i, f := range parts {
		readers[i] = io.NewSectionReader(f, 0, entry.Parts[i].Size)
	}
	var img *image.Image
	err := o.Store.Install(ctx, o.As, func(dir string) error {
		err := pack.Unpack(ctx, io.MultiReader(readers...), dir, entry, func(done, total int64) { o.Progress("unpack", entry.ID, done, total) })
		if err != nil {
			return err
		}
		if img, err = image.Read(dir); err != nil {
			return err
		}
		if img.Architecture != entry.Architecture {
			return fmt.Errorf("%w: it is for %s, the catalog says %s", image.ErrInvalid, img.Architecture, entry.Architecture)
		}
		for name, file := range img.Files {
			if file != entry.Files[name] {
				return fmt.Errorf("%w: its image.json and the catalog disagree about %s", image.ErrInvalid, name)
			}
		}
		return image.MarkPrebuilt(dir)
	})
	return img, err
}

// ErrTooLarge is wrapped when an image has more than PullOptions.MaxSize.
var ErrTooLarge = errors.New("larger than the limit")

// ErrDigest is wrapped when what was fetched is not what the catalog says.
var ErrDigest = errors.New("the download has another digest than the signed catalog says")

// Cache is a directory of files that are only of use until they are complete.
// Who has it open has it for itself.
type Cache struct {
	Dir  string
	lock *os.File
}

// OpenCache waits until no other process has the cache open.
func OpenCache(ctx context.Context, dir string) (*Cache, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	f, err := statefile.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	if err := flock.Exclusive(ctx, f); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	return &Cache{Dir: dir, lock: f}, nil
}

// Close lets others have the cache. What is in it stays.
func (c *Cache) Close() error { return c.lock.Close() }

// Empty removes all that is in the cache.
func (c *Cache) Empty() error {
	entries, err := os.ReadDir(c.Dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.Dir, e.Name())))
	}
	if err != nil {
		return fmt.Errorf("emptying the cache: %w", err)
	}
	return nil
}

// path is where a part is; its digest is checked to be one.
func (c *Cache) path(a catalog.Asset) string { return filepath.Join(c.Dir, a.SHA256) }

func (c *Cache) remove(entry *catalog.Image) {
	for _, p := range entry.Parts {
		os.Remove(c.path(p))
	}
}

// fetch fetches and verifies the parts of an image, which it returns open. What
// is refused is removed; what was interrupted stays.
func (c *Cache) fetch(ctx context.Context, client *github.Client, r *github.Release, entry *catalog.Image, progress Progress) ([]*os.File, error) {
	var files []*os.File
	var done int64
	for _, p := range entry.Parts {
		f, err := statefile.Create(c.path(p))
		if err != nil {
			return files, fmt.Errorf("making a file for a download: %w", err)
		}
		files = append(files, f)
		err = c.fetchPart(ctx, client, r, p, f, func(n int64) { progress("fetch", entry.ID, done+n, entry.DownloadSize) })
		if errors.Is(err, ErrDigest) || errors.Is(err, github.ErrRefused) || errors.Is(err, github.ErrNotFound) {
			c.remove(entry)
		}
		if err != nil {
			return files, err
		}
		done += p.Size
	}
	return files, nil
}

func (c *Cache) fetchPart(ctx context.Context, client *github.Client, r *github.Release, p catalog.Asset, f *os.File, progress func(int64)) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	resumed := info.Size() > 0
	for {
		if err := client.Fetch(ctx, r, p.Name, p.Size, f, progress); err != nil {
			return err
		}
		got, err := image.Digest(ctx, f.Name())
		if err != nil {
			return err
		}
		if got == (image.File{Size: p.Size, SHA256: p.SHA256}) {
			return nil
		}
		if !resumed {
			return fmt.Errorf("%s of release %s of %s: %w: try again; if that does not help, the release is damaged", p.Name, r.Tag, r.Repo, ErrDigest)
		}
		// What an earlier call left may be at fault: once more, all of it.
		resumed = false
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
}

// CleanCache empties a cache that no other process has open.
func CleanCache(dir string) error {
	f, err := statefile.OpenDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cleaning the cache: %w", err)
	}
	defer f.Close()
	if busy, err := flock.TryExclusive(f); busy || err != nil {
		return err
	}
	c := &Cache{Dir: dir, lock: f}
	return c.Empty()
}
