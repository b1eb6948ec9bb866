package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/initramfs"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

const (
	defaultImage = "default"
	defaultRepo  = "abdul-abdi/lumina"
)

// fromFlags are the flags of every command that reads a release.
type fromFlags struct {
	repo, tag, keys, baseURL string
	allowOlder               bool
}

func (f *fromFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.repo, "repo", defaultRepo, "repository of the release")
	flags.StringVar(&f.tag, "tag", "", "tag of the release (default the latest)")
	flags.StringVar(&f.keys, "public-key", "", "also trust this minisign key, or file of keys (default $LUMINA_PUBLIC_KEY)")
	flags.BoolVar(&f.allowOlder, "allow-older", false, "accept a release older than the newest one seen from the same publisher")
	flags.StringVar(&f.baseURL, "base-url", "", "address of a GitHub Enterprise server (default $LUMINA_GITHUB_URL or GitHub)")
}

// from joins flags and environment; flags win, keys add up.
func (f *fromFlags) from(env *environment) (release.From, error) {
	var from release.From
	var err error
	if from.Repo, err = github.ParseRepo(f.repo); err != nil {
		return from, usageError{err}
	}
	if from.Client, err = githubClient(env, f.baseURL, github.Options{}); err != nil {
		return from, err
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return from, err
	}
	from.Tag, from.Seen, from.AllowOlder = f.tag, filepath.Join(home, "releases.json"), f.allowOlder
	if from.Keys, err = sign.Default(); err != nil {
		return from, err
	}
	for _, s := range []string{env.getenv("LUMINA_PUBLIC_KEY"), f.keys} {
		more, err := sign.ReadKeys(s)
		if err != nil {
			return from, usageError{err}
		}
		from.Keys = append(from.Keys, more...)
	}
	return from, nil
}

func githubClient(env *environment, baseURL string, o github.Options) (*github.Client, error) {
	if o.BaseURL = baseURL; baseURL == "" {
		o.BaseURL = env.getenv("LUMINA_GITHUB_URL")
	}
	o.Token = env.getenv("GITHUB_TOKEN")
	c, err := github.New(o)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// Where downloads are kept until they are complete, and releases are made.
func pullCache(home string) string    { return filepath.Join(home, "cache", "pull") }
func publishCache(home string) string { return filepath.Join(home, "cache", "publish") }

// releaseFlags are the flags of a pull from a release.
type releaseFlags struct {
	from    fromFlags
	force   bool
	maxSize byteSize
}

func (f *releaseFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.force, "force", false, "replace another image of the same name")
	f.from.register(c)
}

// pull fetches an image of a release and prints it.
func (f *releaseFlags) pull(ctx context.Context, env *environment, id, platform, as string) error {
	arch, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	from, err := f.from.from(env)
	if err != nil {
		return err
	}
	if as != "" {
		if err := image.CheckName(as); err != nil {
			return usageError{err}
		}
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return err
	}
	pulled, err := pull(ctx, env, from, home, release.PullOptions{ID: id, Architecture: arch, As: as, Force: f.force, MaxSize: int64(f.maxSize)})
	if err != nil {
		return err
	}
	if !pulled.Fresh {
		env.note("image %q already exists", pulled.Name)
	}
	return printImage(env, pulled.Name, pulled.Image)
}

func newPullCommand(env *environment) *cobra.Command {
	var flags releaseFlags
	c := &cobra.Command{
		Use:   "pull",
		Short: "Fetch the default image from the latest release",
		Args:  noReference,
		RunE: func(c *cobra.Command, _ []string) error {
			return flags.pull(c.Context(), env, defaultImage, "linux/"+goruntime.GOARCH, "")
		},
	}
	c.Flags().SortFlags = false
	flags.register(c)
	registerMaxSize(c, &flags.maxSize)
	return c
}

// registerMaxSize is the flag of what makes or fetches an image.
func registerMaxSize(c *cobra.Command, size *byteSize) {
	c.Flags().Var(size, "max-size", "refuse an image that takes more space than this, such as 20GB (default half of the free space)")
}

func newImagesPullCommand(env *environment) *cobra.Command {
	var fromRelease releaseFlags
	var fromRegistry createFlags
	var verifyKey string
	c := &cobra.Command{
		Use:   "pull ID [NAME] | pull REF [NAME]",
		Short: "Fetch an image from a release, or make one from an image of a registry",
		Long: `Fetch an image from a release, by its id or name in the release's catalog.
Everything is verified against the catalog's signature before it is unpacked. An
interrupted download is resumed.

A name with a "/" or a ":" is a reference in a registry. An image that images push
--as-is sent is fetched as it is; a container image is converted, as images create
NAME --from REF does. Without NAME, the image is kept for run --image REF, under a
name made of REF, and updated to what the registry has now. An image NAME that came
from elsewhere is not replaced. With --verify-key, only images that this key has
signed (images push --sign, cosign sign --key) are pulled from a registry; the
signature is checked before anything is unpacked.`,
		Example: `  lumina images pull python
  lumina images pull debian:12
  lumina images pull registry.example.test/team/tools:v1 tools`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			from, name := args[0], ""
			if len(args) == 2 {
				name = args[1]
			}
			if !strings.ContainsAny(from, "/:") {
				if verifyKey != "" {
					return usageError{fmt.Errorf("--verify-key is for what a registry has; what a release has is verified with --public-key: write HOST/%s or %s:latest for the former", from, from)}
				}
				fromRelease.maxSize = fromRegistry.maxSize
				fromRelease.force = fromRelease.force || fromRegistry.replace
				err := fromRelease.pull(c.Context(), env, from, fromRegistry.platform, name)
				if ref, parseErr := reference.Parse(from); err != nil && parseErr == nil && from != defaultImage {
					err = fmt.Errorf("%w; %s of a registry is pulled by: lumina images pull %s:latest", err, ref, from)
				}
				return err
			}
			trust, err := verifyingKey(verifyKey)
			if err != nil {
				return err
			}
			return fromRegistry.pull(c.Context(), env, name, from, fromRelease.force, trust)
		},
	}
	c.Flags().SortFlags = false
	fromRegistry.register(c)
	fromRelease.register(c)
	c.Flags().StringVar(&verifyKey, "verify-key", "", "pull only registry images signed with this public key (cosign)")
	return c
}

// pull makes an image of what a reference names.
func (f *createFlags) pull(ctx context.Context, env *environment, name, from string, force bool, trust *cosign.PublicKey) error {
	arch, err := parsePlatform(f.platform)
	if err != nil {
		return err
	}
	ref, err := reference.Parse(from)
	if err != nil {
		return usageError{err}
	}
	if trust != nil {
		if err := builder.CheckSigned(ref); err != nil {
			return usageError{fmt.Errorf("--verify-key: %w", err)}
		}
	}
	own := name == ""
	if own {
		if name, err = ref.Name(); err != nil {
			return err
		}
	}
	if err := image.CheckName(name); err != nil {
		return usageError{err}
	}
	if err := f.checkKernel(); err != nil {
		return err
	}
	ctx, cancel := f.limit(ctx, "pulling", name)
	defer cancel()
	rt, err := env.openRuntime()
	if err != nil {
		return err
	}
	bars := newProgress(env)
	o := builder.Options{
		Name: name, Reference: ref.String(), Architecture: arch, Rosetta: f.rosetta, Store: rt.Images, CacheDir: filepath.Join(rt.Home(), "cache"),
		Replace: own || force || f.replace || sameSource(rt.Images, name, ref), Kernel: kernelOf(f.kernel), Initramfs: initramfs.Read, Progress: bars.update, MaxSize: int64(f.maxSize), Trust: trust,
	}
	if !f.noVerify {
		o.Verify = func(ctx context.Context, img *image.Handle, whole <-chan struct{}) error {
			return rt.TestImage(ctx, img, whole)
		}
	}
	img, err := builder.Pull(ctx, o)
	bars.close(err == nil)
	if err != nil {
		return f.explain(err)
	}
	return printImage(env, name, img)
}

// sameSource says whether an image was made of a reference: to pull it again is to
// bring it up to date.
func sameSource(store *image.Store, name string, ref reference.Reference) bool {
	h, err := store.Open(name)
	if err != nil {
		return false
	}
	defer h.Close()
	was, err := reference.Parse(h.Source.Reference)
	return err == nil && was == ref
}

// localName is the name of the image that an argument means: one of that name, or
// the one that is kept of a reference.
func localName(store *image.Store, arg string) (string, error) {
	if store.Has(arg) {
		return arg, nil
	}
	if ref, err := reference.Parse(arg); err == nil {
		if name, err := ref.Name(); err == nil && store.Has(name) {
			return name, nil
		}
	}
	if err := image.CheckName(arg); err != nil {
		return "", fmt.Errorf("image %q: %w; see lumina images list", arg, image.ErrNotFound)
	}
	return arg, nil // for the store to tell
}

func pull(ctx context.Context, env *environment, from release.From, home string, o release.PullOptions) (release.Pulled, error) {
	o.Store, o.CacheDir = image.NewStore(filepath.Join(home, "images")), pullCache(home)
	bars := newProgress(env)
	var told sync.Once
	o.Progress = func(step, item string, done, total int64) {
		if bars.bars == nil { // why it takes long is said once
			told.Do(func() { env.note("fetching %s, %s", item, formatSize(total)) })
		}
		bars.update(builder.Progress{Step: step + " " + item, Done: done, Total: total})
	}
	pulled, err := from.Pull(ctx, o)
	bars.close(err == nil)
	return pulled, orMaxSize(err, o.MaxSize)
}

// orMaxSize says of an image that is too large what lets it be. asked is the limit that
// was given; without one it is the disk that has no room.
func orMaxSize(err error, asked int64) error {
	switch {
	case !errors.Is(err, builder.ErrTooLarge) && !errors.Is(err, release.ErrTooLarge):
		return err
	case asked > 0:
		return fmt.Errorf("%w; --max-size sets another", err)
	}
	return fmt.Errorf("%w; the limit is half of the disk space that is free: free more, or set a larger limit with --max-size", err)
}

// noReference are pull's arguments: there are none, though docker's has one.
func noReference(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return usageError{fmt.Errorf("pull fetches the default image: lumina run --image %[1]s fetches that by itself, and lumina images create NAME --from %[1]s keeps it under a name", args[0])}
	}
	return usageArgs(cobra.NoArgs)(c, args)
}
