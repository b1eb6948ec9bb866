package dockerfile

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// What one host has made another one takes from a registry; what the registry has
// spoilt is made anew, and said.
func TestCacheOfARegistry(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs docker-registry")
	}
	registry, data := buildertest.RegistryData(t)
	ref := registry + "/cache:1"
	if _, err := builder.OpenLayerCache(t.Context(), ref); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("of a registry that has none: %v", err)
	}
	ran := 0
	build := func() (digest string, failed error) {
		t.Helper()
		b := newBench(t) // another host
		file, err := Parse(strings.NewReader("FROM scratch\nRUN [\"/x\"]\nRUN [\"/y\"]\n"), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		o := b.options("made", Maker(Options{File: file, Log: NewLog(io.Discard),
			Start: func(context.Context, Start) (VM, error) { return countingVM{&ran}, nil }}))
		o.Used = &builder.UsedLayers{}
		cache, err := builder.OpenLayerCache(t.Context(), ref)
		if err == nil {
			defer cache.Close()
			o.CacheFrom = []*builder.LayerCache{cache}
		} else if !errors.Is(err, oci.ErrNotFound) {
			t.Fatal(err)
		}
		img, err := builder.Create(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if cache != nil {
			failed = cache.Err()
		}
		if _, err := builder.PushLayerCache(t.Context(), ref, o.Used, nil); err != nil {
			t.Fatal(err)
		}
		return img.Files[image.Rootfs].SHA256, failed
	}
	first, _ := build()
	second, failed := build()
	if ran != 2 || first != second || failed != nil {
		t.Fatalf("%d commands were run, want 2; roots %s and %s; %v", ran, first, second, failed)
	}
	spoilt := 0
	err := filepath.WalkDir(data, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "data" {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b {
			spoilt++
			b[len(b)-1] ^= 1
			err = os.WriteFile(name, b, 0o600)
		}
		return err
	})
	if err != nil || spoilt == 0 {
		t.Fatalf("%d layers found, %v", spoilt, err)
	}
	// Both layers are the same here: it is made once.
	if third, failed := build(); ran != 3 || third != first || failed == nil {
		t.Errorf("%d commands were run, want 3; root %s; the failure is %v", ran, third, failed)
	}
}
