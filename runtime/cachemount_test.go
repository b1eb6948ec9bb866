package runtime

import (
	"context"
	"errors"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Two builds that use one cache mount have it one after the other.
func TestCacheMount(t *testing.T) {
	r, err := Open(Options{Home: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.CacheMount(t.Context(), "apt")
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := r.CacheMount(ctx, "apt"); !errors.Is(err, cause) {
		t.Errorf("an interrupted build: %v", err)
	}
	type result struct {
		disk *volume.Disk
		err  error
	}
	opened := make(chan result, 2)
	for range 2 {
		go func() {
			d, err := r.CacheMount(t.Context(), "apt")
			opened <- result{d, err}
		}()
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := <-opened
		if got.err != nil {
			t.Fatal(got.err)
		}
		if err := got.disk.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
