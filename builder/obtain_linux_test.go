package builder

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func TestObtain(t *testing.T) {
	first := writeLayout(t, "amd64", layer(t, file("a", "one")))
	second := writeLayout(t, "amd64", layer(t, file("a", "two")))
	registry := buildertest.Registry(t)
	push := func(layout, tag string) {
		buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "oci:"+layout+":latest", "docker://"+registry+"/team/app:"+tag)
	}
	push(first, "v1")
	o := options(t, "")
	o.Name = ""
	var made atomic.Int32
	obtain := func(ref string, policy PullPolicy) (string, error) {
		return Obtain(t.Context(), ref, policy, o, func(_ reference.Reference, waits bool) {
			if !waits {
				made.Add(1)
			}
		})
	}
	must := func(ref string, policy PullPolicy) string {
		t.Helper()
		name, err := obtain(ref, policy)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Store.Has(name) {
			t.Fatalf("%s is to be %q, which is not there", ref, name)
		}
		return name
	}
	root := func(name string) string {
		h, err := o.Store.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		return h.Files[image.Rootfs].SHA256
	}
	steps := func(want int32, what string) {
		t.Helper()
		if got := made.Swap(0); got != want {
			t.Errorf("%s: made %d times, want %d", what, got, want)
		}
	}
	ref := registry + "/team/app:v1"

	if _, err := obtain(ref, PullNever); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("never: %v", err)
	}
	// Many at once make it once.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := obtain(ref, PullMissing); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	steps(1, "eight at once")
	name := must(ref, PullNever)
	one := root(name)
	if left := files(filepath.Join(o.CacheDir, "pulls")); left != "" {
		t.Errorf("left behind: %s", left)
	}

	// always is fetched when the registry has another.
	must(ref, PullAlways)
	steps(0, "always, and nothing is new")
	push(second, "v1")
	must("docker://"+ref, PullMissing)
	steps(0, "missing")
	if must(ref, PullAlways) != name || root(name) == one {
		t.Error("always: the image is the old one")
	}
	steps(1, "always")

	// Files are looked at.
	layout := filepath.Join(t.TempDir(), "layout")
	buildertest.Run(t, "cp", "-a", first, layout)
	name = must("oci:"+layout, PullMissing)
	must("oci:"+layout+"/", PullMissing)
	steps(1, "a layout, by two names")
	buildertest.Run(t, "rm", "-r", layout)
	must("oci:"+layout, PullNever)
	buildertest.Run(t, "cp", "-a", second, layout)
	if must("oci:"+layout, PullMissing) != name || root(name) == one {
		t.Error("the layout is another, the image is not")
	}
	steps(1, "a layout that changed")

	// A local name wins, though a reference could be meant.
	local := o
	local.Name, local.Reference = "app", "oci:"+first
	create(t, local)
	if must("app", PullMissing) != "app" || must("app", PullAlways) != "app" {
		t.Error("the local name did not win")
	}
	steps(0, "a local name")

	for bad, want := range map[string]error{"./" + filepath.Base(layout): reference.ErrInvalid, "x..y": image.ErrNotFound, registry + "/team/app:none": image.ErrNotFound, "oci:/no/such": image.ErrNotFound} {
		if _, err := obtain(bad, PullMissing); !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	cancelled, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := Obtain(cancelled, registry+"/team/other", PullMissing, o, nil); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if left := files(filepath.Join(o.CacheDir, "pulls")); left != "" || o.Store.Stale() > 0 {
		t.Errorf("left behind: %s", left)
	}
}

// What an image has is not replaced unless somebody says so.
func TestCreateKeepsWhatIsThere(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "one"))))
	before, err := os.ReadFile(create(t, o))
	if err != nil {
		t.Fatal(err)
	}
	o.Reference, o.Replace = "oci:"+writeLayout(t, "amd64", layer(t, file("a", "two"))), false
	if _, err := Create(t.Context(), o); !errors.Is(err, image.ErrExists) {
		t.Errorf("Create() = %v", err)
	}
	// It is there only when this one is done: two began at once.
	other := o
	other.Name = "other"
	o.Name, o.Verify = "other", func(_ context.Context, h *image.Handle, _ <-chan struct{}) error {
		h.Close()
		create(t, other)
		return nil
	}
	if _, err := Create(t.Context(), o); !errors.Is(err, image.ErrExists) {
		t.Errorf("Create() of two at once = %v", err)
	}
	o.Name, o.Verify, o.Replace = "test", nil, true
	if after, err := os.ReadFile(create(t, o)); err != nil || bytes.Equal(before, after) {
		t.Errorf("it was not replaced, %v", err)
	}
	if o.Store.Stale() > 0 {
		t.Error("something is left behind")
	}
}

// A lock that is a link is not followed: a file elsewhere is not made.
func TestLockOfAPullThatIsALink(t *testing.T) {
	cache, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	lock := filepath.Join(cache, "pulls", "x.lock")
	if err := errors.Join(os.Mkdir(filepath.Dir(lock), 0o700), os.Symlink(outside, lock)); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockName(t.Context(), cache, "x", func() {})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := os.Lstat(outside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the link leads to was made: %v", err)
	}
}
