package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// PullPolicy says when the image of a reference is fetched.
type PullPolicy string

// The policies.
const (
	PullMissing PullPolicy = "missing" // when there is none, or its files changed since
	PullAlways  PullPolicy = "always"  // when the registry has another than is here
	PullNever   PullPolicy = "never"
)

// PullPolicies are all of them.
var PullPolicies = []PullPolicy{PullMissing, PullAlways, PullNever}

// Check says what is wrong with a policy.
func (p PullPolicy) Check() error {
	for _, known := range PullPolicies {
		if p == known {
			return nil
		}
	}
	return fmt.Errorf("%q: want missing, always or never", p)
}

// Obtain returns the name of the store's image that ref means: the image of that
// name, if there is one, else the one that is kept of the reference ref (see
// reference.Reference.Name). It is made when policy says so, and only once if several
// processes ask for it at the same time. tell, which may be nil, is called with the
// reference and whether another process makes it already. o says how to make it; its Name
// and Reference are ignored.
func Obtain(ctx context.Context, ref string, policy PullPolicy, o Options, tell func(r reference.Reference, waits bool)) (string, error) {
	if o.Store.Has(ref) {
		if o.Trust != nil && !isVerified(o.Store, ref, o.Trust) {
			return "", fmt.Errorf("image %q is %w: it was not pulled with this key; do that with: lumina images pull REF %s --replace --verify-key KEY", ref, oci.ErrNotSigned, ref)
		}
		return ref, nil
	}
	r, err := reference.Parse(ref)
	if err != nil && image.CheckName(ref) == nil {
		return "", fmt.Errorf("image %q: %w; see lumina images list: %w", ref, image.ErrNotFound, err)
	}
	if err != nil {
		return "", err
	}
	if o.Name, err = r.Name(); err != nil {
		return "", err
	}
	trusted := func() bool { return o.Trust == nil || isVerified(o.Store, o.Name, o.Trust) }
	if policy == PullNever {
		if !o.Store.Has(o.Name) {
			return "", fmt.Errorf("image %q: %w, and it may not be fetched (pull: never); see lumina images list", ref, image.ErrNotFound)
		}
		if !trusted() {
			return "", fmt.Errorf("image %q is %w: it was not pulled with this key, and it may not be fetched (pull: never)", ref, oci.ErrNotSigned)
		}
		return o.Name, nil
	}
	present := func() bool {
		return policy == PullMissing && o.Store.Has(o.Name) && !changed(o.Store, o.Name, r) && trusted()
	}
	if present() {
		return o.Name, nil
	}
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	if tell == nil {
		tell = func(reference.Reference, bool) {}
	}
	unlock, err := lockName(ctx, o.CacheDir, o.Name, func() { tell(r, true) })
	if err != nil {
		return "", err
	}
	defer unlock()
	if present() { // somebody else made it meanwhile
		return o.Name, nil
	}
	o.Reference, o.Replace = r.String(), true
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	if policy == PullAlways && trusted() && current(ctx, o) {
		return o.Name, nil
	}
	tell(r, false)
	if _, err := Pull(ctx, o); err != nil {
		if errors.Is(err, context.Cause(ctx)) {
			return "", err
		}
		if errors.Is(err, oci.ErrNotSigned) {
			return "", err
		}
		hint := ""
		if _, statErr := os.Stat(ref); statErr == nil {
			hint = "; if the file or directory here was meant, write oci:" + ref
		}
		return "", fmt.Errorf("image %q: %w (lumina images list), and it cannot be fetched: %w%s", ref, image.ErrNotFound, err, hint)
	}
	return o.Name, nil
}

// Pull makes an image of what a reference names: what PushArtifact sent comes as
// it was, of a container image one is made.
func Pull(ctx context.Context, o Options) (*image.Image, error) {
	r, err := reference.Parse(o.Reference)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Trust != nil {
		if o.verified, err = verify(ctx, r, o.Trust); err != nil {
			return nil, err
		}
	}
	if r.Kind == reference.Registry {
		img, err := PullArtifact(ctx, PullOptions{Name: o.Name, Reference: o.Reference, Architecture: o.Architecture, Store: o.Store, CacheDir: o.CacheDir,
			MaxSize: o.MaxSize, Replace: o.Replace, verified: o.verified, Verify: o.Verify, Progress: o.Progress})
		if !errors.Is(err, ErrNotArtifact) {
			return img, err
		}
	}
	return Create(ctx, o)
}

// current says whether the image is what its reference names now.
func current(ctx context.Context, o Options) bool {
	h, err := o.Store.Open(o.Name)
	if err != nil {
		return false
	}
	defer h.Close()
	img, err := oci.Open(ctx, o.Reference, oci.Options{Platform: v1.Platform{OS: "linux", Architecture: o.Architecture}, CacheDir: o.CacheDir})
	if err != nil {
		return false // who makes it tells
	}
	defer img.Close()
	return img.Digest != "" && img.Digest == h.Source.Digest && h.Architecture == o.Architecture
}

// changed says whether files that an image was made of are younger than it is.
func changed(store *image.Store, name string, r reference.Reference) bool {
	path, local := r.Local()
	if !local {
		return false
	}
	h, err := store.Open(name)
	if err != nil {
		return false // who starts it tells
	}
	defer h.Close()
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return false // gone, and not needed
	}
	// The initramfs is the first file that is written, and shared with no other
	// image. A copy of an archive may keep the time of its content, but not that of
	// the file.
	made, err := os.Stat(h.Path(image.Initramfs))
	return err == nil && s.Ctim.Nano() > made.ModTime().UnixNano()
}

// lockName makes this process the only one that makes an image of a name.
// waits is called when another does.
func lockName(ctx context.Context, cacheDir, name string, waits func()) (unlock func(), err error) {
	dir := filepath.Join(cacheDir, "pulls")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("locking image %q: %w", name, err)
	}
	path := filepath.Join(dir, name+".lock")
	for {
		f, err := statefile.CreateLock(path)
		if err != nil {
			return nil, fmt.Errorf("locking image %q: %w", name, err)
		}
		busy, err := flock.TryExclusive(f)
		if err == nil && busy {
			waits()
			err = flock.Exclusive(ctx, f)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		// Who had it before has removed it.
		if flock.Names(path, f) {
			return func() {
				_ = os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
	}
}
