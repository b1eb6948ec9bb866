package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/initramfs"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// pullTimeout bounds the making of an image that a start needs.
const pullTimeout = 30 * time.Minute

// checkImage says what is wrong with the value of --image, as far as its form
// tells. A name may be a local image's.
func checkImage(ref string) error {
	if image.CheckName(ref) == nil {
		return nil
	}
	_, err := reference.Parse(ref)
	return err
}

// obtaining says how an image is fetched.
type obtaining struct {
	policy  builder.PullPolicy
	trust   *cosign.PublicKey // whose signature it must have; nil: none is needed
	maxSize int64             // bytes; 0: half of what is free
}

// obtainImage finds the image that a VM is to start from, and makes *ref its name
// in the store. One that is not there is fetched first, as policy says: the default
// image from the release, another from what the reference names.
func obtainImage(ctx context.Context, env *environment, home string, ref *string, how obtaining) error {
	store := image.NewStore(filepath.Join(home, "images"))
	here := store.Has(*ref)
	if here && how.trust == nil && (*ref != defaultImage || how.policy != builder.PullAlways) {
		return nil
	}
	if *ref == defaultImage && how.policy != builder.PullNever && (how.trust == nil || !here) {
		if how.trust != nil {
			return usageError{fmt.Errorf("--verify-key is for images of a registry: give one with --image")}
		}
		return pullDefault(ctx, env, home, how.maxSize)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, fmt.Errorf("fetching image %q took longer than %v", *ref, pullTimeout))
	defer cancel()
	bars := newProgress(env)
	name, err := builder.Obtain(ctx, *ref, how.policy, builder.Options{
		Architecture: goruntime.GOARCH, Store: store, CacheDir: filepath.Join(home, "cache"),
		Kernel: kernelOf(""), Initramfs: initramfs.Read, Progress: bars.update,
		Trust: how.trust, MaxSize: how.maxSize,
	}, func(r reference.Reference, waits bool) {
		if waits {
			env.note("another lumina process is making an image of %s: waiting for it", r)
			return
		}
		env.note("making an image of %s", r)
	})
	bars.close(err == nil)
	switch {
	case err == nil:
		*ref = name
		return nil
	case errors.Is(err, reference.ErrInvalid):
		return usageError{err}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return &runtime.Error{Kind: runtime.ConnectionFailed, Err: orMaxSize(err, how.maxSize)}
}

// pullDefault pulls the default image from the latest release.
func pullDefault(ctx context.Context, env *environment, home string, maxSize int64) error {
	flags := fromFlags{repo: defaultRepo}
	from, err := flags.from(env)
	if err == nil {
		_, err = pull(ctx, env, from, home, release.PullOptions{ID: defaultImage, Architecture: goruntime.GOARCH, MaxSize: maxSize})
	}
	if err != nil && ctx.Err() == nil {
		err = &runtime.Error{Kind: runtime.ConnectionFailed, Err: fmt.Errorf(
			"image %q: %w, and it cannot be pulled (%w); this takes another: %s", defaultImage, image.ErrNotFound, err, withImage(env, "debian:12"))}
	}
	return err
}

// withImage is a command line, for a shell, that does with another image what this
// process was to do with the default one: the same with --image, or, where that
// cannot be said in one line, one that makes the default image of it.
func withImage(env *environment, ref string) string {
	verbs := map[string]int{"run": 1, "session": 2, "pool": 2}
	n := 0
	if len(env.args) > 0 {
		n = verbs[env.args[0]]
	}
	words := []string{env.program, "images", "create", defaultImage, "--from", ref}
	if n > 0 && n <= len(env.args) && !slices.ContainsFunc(env.args[n:], func(arg string) bool {
		// The value of a variable may be secret.
		return strings.HasPrefix(arg, "-e") || strings.HasPrefix(arg, "--env") || strings.HasPrefix(arg, "--image") || strings.ContainsFunc(arg, unicode.IsControl)
	}) {
		words = slices.Concat([]string{env.program}, env.args[:n], []string{"--image", ref}, env.args[n:])
	}
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	return strings.Join(words, " ")
}

// shellQuote writes s as one word for a shell.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
