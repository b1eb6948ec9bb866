package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// aMinute only ends a hang.
func aMinute(t *testing.T, what string, c <-chan struct{}) error {
	t.Helper()
	select {
	case <-c:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("waited for a minute: %s", what)
	}
}

// The trial begins before the root is written, and is told when it is.
func TestTrialBesideTheRoot(t *testing.T) {
	add := func(name string) []byte { return layer(t, file(name, strings.Repeat("content", 1<<16))) }
	for _, tt := range []struct {
		name   string
		change func(*Options)
	}{
		{"container image", func(*Options) {}},
		{"steps", func(o *Options) {
			o.Steps = []string{"make b"}
			o.RunStep = func(_ context.Context, _ Step, w io.Writer) error {
				_, err := w.Write(add("b"))
				return err
			}
		}},
		{"recipe", func(o *Options) {
			o.Files = []recipe.File{{Path: "/b", Content: "content"}}
			o.Configure = func(img *image.Image) { img.Config.User = "nobody" }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, "oci:"+writeLayout(t, "amd64", add("a")))
			tt.change(&o)
			testTrialBesideTheRoot(t, o)
		})
	}
}

func testTrialBesideTheRoot(t *testing.T, o Options) {
	began := make(chan struct{})
	var once sync.Once
	held := false // the writing of the root
	o.Progress = func(p Progress) {
		// The image is made in a directory of a temporary one. What steps run in has a
		// root of its own, below that.
		ours, err := filepath.Glob(filepath.Join(filepath.Dir(o.CacheDir), "images", "*", "*", image.Rootfs))
		if err != nil {
			t.Error(err)
		}
		if p.Step == "unpack" && len(ours) > 0 {
			once.Do(func() {
				held = true
				if err := aMinute(t, "for the trial to begin", began); err != nil {
					t.Error(err)
				}
			})
		}
	}
	var early, whole int64
	var tried image.Config
	size := func(h *image.Handle) int64 {
		info, err := os.Stat(h.Path(image.Rootfs))
		if err != nil {
			t.Error(err)
			return 0
		}
		return info.Size()
	}
	o.MaxSize = 5<<20 + 1
	o.Verify = func(_ context.Context, h *image.Handle, isWhole <-chan struct{}) error {
		defer h.Close()
		select {
		case <-isWhole:
			t.Error("the root was written before the trial began")
		default:
		}
		early, tried = size(h), h.Config
		if root, known := h.Files[image.Rootfs]; known {
			t.Errorf("the trial has the image's own description: %+v", root)
		}
		f, err := h.Open(image.Kernel)
		if err != nil {
			return err
		}
		f.Close()
		close(began)
		err = aMinute(t, "for the root", isWhole)
		whole = size(h)
		return err
	}
	img, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !held {
		t.Error("the root was never held back")
	}
	// A VM finds the size of its disk when it starts.
	if want := img.Files[image.Rootfs].Size; early != 6<<20 || whole != want {
		t.Errorf("the root had %d bytes at first and %d when it was whole, want %d and %d", early, whole, 6<<20, want)
	}
	if tried.User != img.Config.User {
		t.Errorf("the trial was as user %q, the image is %q's", tried.User, img.Config.User)
	}
}

// Whichever of the two fails first ends the other, and is what is told.
func TestTrialEndsWithTheRoot(t *testing.T) {
	panicked := errors.New("kernel panic")
	good := layer(t, file("a", strings.Repeat("content", 1<<16)))
	for _, tt := range []struct {
		name, want string
		layer      []byte
		verify     Verifier
	}{
		{"broken layer", "layer 1 of 1", layer(t, file("../a", "")), func(ctx context.Context, h *image.Handle, whole <-chan struct{}) error {
			defer h.Close()
			if err := aMinute(t, "for the end", ctx.Done()); err != nil {
				t.Error(err)
			}
			return context.Cause(ctx)
		}},
		{"kernel that panics", ": the image does not boot: kernel panic$", good, func(_ context.Context, h *image.Handle, _ <-chan struct{}) error {
			h.Close()
			return panicked
		}},
		{"image that boots and fails a test", ": the image fails a test: exit code 3$", good, func(_ context.Context, h *image.Handle, _ <-chan struct{}) error {
			h.Close()
			return fmt.Errorf("%w: exit code 3", ErrTest)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, "oci:"+writeLayout(t, "amd64", tt.layer))
			o.Verify = tt.verify
			if _, err := Create(t.Context(), o); err == nil || !regexp.MustCompile(tt.want).MatchString(err.Error()) {
				t.Errorf("Create() = %v, want %q", err, tt.want)
			}
			if o.Store.Has("test") || o.Store.Stale() > 0 {
				t.Error("something is left behind")
			}
		})
	}
}
