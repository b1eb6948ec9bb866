package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

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
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", strings.Repeat("content", 1<<16)))))
	began := make(chan struct{})
	var once sync.Once
	o.Progress = func(p Progress) {
		if p.Step == "unpack" {
			once.Do(func() {
				if err := aMinute(t, "for the trial to begin", began); err != nil {
					t.Error(err)
				}
			})
		}
	}
	var early, whole int64
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
		early = size(h)
		if kernel := h.Files[image.Kernel]; kernel.Size != 0 {
			t.Errorf("the trial has the image's own description: %+v", h.Files)
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
	// A VM finds the size of its disk when it starts.
	if want := img.Files[image.Rootfs].Size; early != 6<<20 || whole != want {
		t.Errorf("the root had %d bytes at first and %d when it was whole, want %d and %d", early, whole, 6<<20, want)
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
		{"kernel that panics", "does not boot: kernel panic", good, func(_ context.Context, h *image.Handle, _ <-chan struct{}) error {
			h.Close()
			return panicked
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, "oci:"+writeLayout(t, "amd64", tt.layer))
			o.Verify = tt.verify
			if _, err := Create(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create() = %v, want %q", err, tt.want)
			}
			if o.Store.Has("test") || o.Store.Stale() > 0 {
				t.Error("something is left behind")
			}
		})
	}
}
