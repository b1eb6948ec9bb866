package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/attest"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/outfile"
)

func newReleaseCommand(env *environment) *cobra.Command {
	return newGroup("release", "Publish images as a GitHub release", newPublishCommand(env), newKeygenCommand(env))
}

// publishFlags are the flags of release publish.
type publishFlags struct {
	repo, tag, key, out, baseURL string
	files                        []string
	partSize                     byteSize
	dryRun, replace, draft       bool
}

func newPublishCommand(env *environment) *cobra.Command {
	var flags publishFlags
	c := &cobra.Command{
		Use:   "publish IMAGE[=NAME]… --repo OWNER/REPO --tag TAG",
		Short: "Pack, sign and upload images",
		Long: `Pack, sign and upload images as a release of a GitHub repository.

Each image becomes NAME-ARCHITECTURE, with an SBOM and its provenance; the
signed catalog lists them all, so name all images of a release in one call. The
release is a draft until everything is there. A failed call can be
repeated: files already uploaded are kept. The token is GITHUB_TOKEN.`,
		Example: `  lumina release keygen lumina.key
  lumina release publish default default-arm64=default --repo me/images --tag v1 --key lumina.key`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return publish(c.Context(), env, &flags, args)
		},
		ValidArgsFunction: completeNames(env, imageStore),
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&flags.repo, "repo", "", "repository, OWNER/REPO (required)")
	f.StringVar(&flags.tag, "tag", "", "tag of the release, such as v1.2.0 (required)")
	f.StringVar(&flags.key, "key", "", "private key that signs (default $LUMINA_KEY); LUMINA_KEY_PASSWORD decrypts it")
	f.StringArrayVar(&flags.files, "file", nil, "also publish this file, for example a program (repeatable)")
	f.BoolVar(&flags.replace, "replace", false, "replace files of the release that differ")
	f.BoolVar(&flags.draft, "draft", false, "keep a new release as a draft")
	f.BoolVar(&flags.dryRun, "dry-run", false, "make the files and list what would be uploaded; GitHub is only asked with GITHUB_TOKEN")
	f.StringVar(&flags.out, "out", "", "keep the release's files in this directory, which must be empty or missing")
	f.Var(&flags.partSize, "part-size", "size of an archive's largest part (default just under 2GB, GitHub's limit)")
	f.StringVar(&flags.baseURL, "base-url", "", "address of a GitHub Enterprise server (default $LUMINA_GITHUB_URL or GitHub)")
	return c
}

// publishResult is what publish prints.
type publishResult struct {
	Repo   string `json:"repo"`
	Tag    string `json:"tag"`
	DryRun bool   `json:"dry_run,omitempty"`
	github.Published
	Files []publishedFile `json:"files"`
}

type publishedFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func publish(ctx context.Context, env *environment, flags *publishFlags, args []string) error {
	if flags.repo == "" || flags.tag == "" {
		return usageError{errors.New("--repo and --tag are required; see lumina release publish --help")}
	}
	repo, err := github.ParseRepo(flags.repo)
	if err != nil {
		return usageError{err}
	}
	var sources []release.Source
	for _, a := range args {
		s, err := release.ParseSource(a)
		if err != nil {
			return usageError{err}
		}
		sources = append(sources, s)
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return err
	}
	// What fails soonest comes first: packing takes its time.
	token := env.getenv("GITHUB_TOKEN")
	if token == "" && !flags.dryRun {
		return errors.New("GITHUB_TOKEN is not set: publishing needs a token with the permission contents: write (or --dry-run)")
	}
	// Publishing waits for GitHub as long as it wants: a release is long.
	client, err := githubClient(env, flags.baseURL, github.Options{MaxWait: 15 * time.Minute})
	if err != nil {
		return err
	}
	key, err := signingKey(env, flags)
	if err != nil {
		return err
	}
	dir, remove, err := outDir(ctx, flags.out, home)
	if err != nil {
		return err
	}
	defer remove()
	bars := newProgress(env)
	progress := func(step, item string, done, total int64) {
		bars.update(builder.Progress{Step: step + " " + item, Done: done, Total: total})
	}
	result := publishResult{Repo: repo.String(), Tag: flags.tag, DryRun: flags.dryRun,
		Published: github.Published{Uploaded: []string{}, Replaced: []string{}, Kept: []string{}}}
	files, err := release.Build(ctx, release.BuildOptions{
		Store: image.NewStore(filepath.Join(home, "images")), Images: sources, Files: flags.files, Tag: flags.tag, Dir: dir,
		Key: key, Issued: newestOf(flags.files), PartSize: int64(flags.partSize), Builder: releaseBuilder(env), Progress: progress,
	})
	if err == nil && token != "" {
		result.Published, err = client.Publish(ctx, repo, flags.tag, files, github.PublishOptions{
			Replace: flags.replace, Draft: flags.draft, DryRun: flags.dryRun,
			Progress: func(name string, done, total int64) { progress("upload", name, done, total) },
		})
	}
	bars.close(err == nil)
	if err != nil {
		return err
	}
	for _, f := range files {
		result.Files = append(result.Files, publishedFile{f.Name, f.Size, f.SHA256})
		if token == "" {
			result.Uploaded = append(result.Uploaded, f.Name)
		}
	}
	return printPublished(env, result)
}

func printPublished(env *environment, r publishResult) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, r)
	}
	did := map[string]string{}
	for _, x := range []struct {
		names []string
		what  string
	}{{r.Uploaded, "uploaded"}, {r.Replaced, "replaced"}, {r.Kept, "kept"}} {
		for _, name := range x.names {
			did[name] = x.what
		}
	}
	for _, file := range r.Files {
		_ = printLine(env.stdout, "%-9s %9s  %s", did[file.Name], formatSize(file.Size), file.Name)
	}
	if r.DryRun {
		_, err = fmt.Fprintln(env.stdout, "nothing was uploaded (--dry-run)")
	} else {
		err = printLine(env.stdout, "%s", r.URL)
	}
	return err
}

// signingKey reads the key that signs; nil in a dry run without one.
func signingKey(env *environment, flags *publishFlags) (*sign.PrivateKey, error) {
	path := flags.key
	if path == "" {
		path = env.getenv("LUMINA_KEY")
	}
	if path == "" {
		if flags.dryRun {
			env.note("no --key: the files are not signed, and lumina pull refuses unsigned releases")
			return nil, nil
		}
		return nil, usageError{errors.New("--key is missing: releases are signed; make a key with: lumina release keygen FILE")}
	}
	key, err := sign.ReadPrivateKey(path, env.getenv("LUMINA_KEY_PASSWORD"))
	if err != nil {
		return nil, err
	}
	trusted, err := sign.Default()
	if err != nil {
		return nil, err
	}
	if !trusted.Trust(key) {
		env.note("lumina does not know this key; users who pull must set LUMINA_PUBLIC_KEY=%s", key.Public())
	}
	return &key, nil
}

// outDir makes the directory for the release's files: the user's, which stays,
// or one that remove empties. One release is made at a time.
func outDir(ctx context.Context, path, home string) (dir string, remove func(), err error) {
	if path == "" {
		cache, err := release.OpenCache(ctx, publishCache(home))
		if err != nil {
			return "", nil, err
		}
		remove := func() {
			_ = cache.Empty() // the next one does it again
			cache.Close()
		}
		if err := cache.Empty(); err != nil { // of one that was killed
			remove()
			return "", nil, err
		}
		return cache.Dir, remove, nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", nil, fmt.Errorf("--out: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", nil, fmt.Errorf("--out: %w", err)
	}
	if len(entries) > 0 {
		return "", nil, usageError{fmt.Errorf("--out %q is not empty; remove it first", path)}
	}
	return path, func() {}, nil
}

// releaseBuilder is who publishes: a workflow's run, or somebody's machine.
func releaseBuilder(env *environment) attest.Builder {
	b := attest.Builder{ID: "https://github.com/abdul-abdi/lumina/release/local", Version: version}
	server, repo := env.getenv("GITHUB_SERVER_URL"), env.getenv("GITHUB_REPOSITORY")
	if env.getenv("GITHUB_ACTIONS") == "true" && server != "" && repo != "" {
		b.ID = server + "/" + env.getenv("GITHUB_WORKFLOW_REF")
		b.Invocation = server + "/" + repo + "/actions/runs/" + env.getenv("GITHUB_RUN_ID")
	}
	return b
}

func newKeygenCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Create a key that signs releases",
		Long: `Create a key pair that signs releases, in minisign's format. FILE is the private key:
keep it secret. FILE.pub is the public key, for users who pull. If LUMINA_KEY_PASSWORD
is set, FILE is encrypted.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, path := range []string{args[0], args[0] + ".pub"} {
				if to, err := outfile.Check(path); err != nil {
					return usageError{err}
				} else if to.Exists {
					return fmt.Errorf("writing the key: %q exists; choose another FILE", path)
				}
			}
			public, private, err := sign.Generate(env.getenv("LUMINA_KEY_PASSWORD"))
			if err != nil {
				return err
			}
			for _, file := range []struct {
				path string
				text []byte
				mode os.FileMode
			}{{args[0], private, 0o600}, {args[0] + ".pub", public, 0o644}} {
				if err := writeNew(file.path, file.text, file.mode); err != nil {
					if file.path != args[0] { // a key without its other half is of no use
						err = errors.Join(err, os.Remove(args[0]))
					}
					return err
				}
			}
			keys, err := sign.ReadKeys(args[0] + ".pub")
			if err != nil {
				return err
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			if f == formatText {
				_, err = fmt.Fprintf(env.stdout, "LUMINA_PUBLIC_KEY=%s\n", keys[0])
				return err
			}
			return printJSON(env.stdout, map[string]string{"public_key": keys[0].String(), "private_key_file": args[0]})
		},
	}
}

// writeNew writes a file that is not there yet.
func writeNew(path string, text []byte, mode os.FileMode) error {
	parents, err := outfile.MakeParents(path)
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		parents.Remove()
		return fmt.Errorf("writing the key: %w; choose another FILE", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(fmt.Errorf("writing the key: %w", err), os.Remove(path))
		parents.Remove()
	}
	return err
}

// newestOf is when the newest of some files was written. A release is issued no
// earlier; to publish the same again gives the same.
func newestOf(files []string) (newest time.Time) {
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest // an unreadable one is reported when it is published
}
