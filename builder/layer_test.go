package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// openedLayer is a layer that open opens, of a plain archive.
func openedLayer(content []byte, open func(context.Context) (io.ReadCloser, error)) oci.Layer {
	return oci.Layer{DiffID: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(content))}, Size: int64(len(content)), Open: open}
}

// The next layer is read and uncompressed while one is written.
func TestNextLayerIsReadAhead(t *testing.T) {
	first, second := layer(t, file("a", "1")), layer(t, file("a", "2"))
	begun := make(chan struct{})
	layers := []oci.Layer{
		openedLayer(first, func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(readFunc(func([]byte) (int, error) { <-begun; return 0, io.EOF }), bytes.NewReader(first))), nil
		}),
		openedLayer(second, func(context.Context) (io.ReadCloser, error) {
			close(begun)
			return io.NopCloser(bytes.NewReader(second)), nil
		}),
	}
	if err := writeLayers(t.Context(), filepath.Join(t.TempDir(), "root"), layers, 1<<20, nil, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
}

// A layer that fails ends the reading of the next one, which may never end by
// itself, and is what is told, unless the next cannot be had at all.
func TestLayerThatFailsEndsTheNext(t *testing.T) {
	good := layer(t, file("a", "1"))
	broken := errors.New("the disk has a bad sector")
	var closed atomic.Bool
	endless := func(ctx context.Context) (io.ReadCloser, error) {
		return closeFunc{readFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() }), func() { closed.Store(true) }}, nil
	}
	for _, tt := range []struct {
		name string
		open func(context.Context) (io.ReadCloser, error)
		want string
	}{
		{"cannot be opened", func(context.Context) (io.ReadCloser, error) { return nil, broken }, "layer 1 of 2"},
		{"cannot be read", func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(readFunc(func([]byte) (int, error) { return 0, broken })), nil
		}, "layer 1 of 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			closed.Store(false)
			layers := []oci.Layer{openedLayer(good, tt.open), openedLayer(good, endless)}
			err := writeLayers(t.Context(), filepath.Join(t.TempDir(), "root"), layers, 1<<20, nil, func(Progress) {})
			if !errors.Is(err, broken) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("error %v, want %v of %s", err, broken, tt.want)
			}
			if !closed.Load() {
				t.Error("the next layer was not closed")
			}
		})
	}
	// In its turn the second one's own error is told.
	err := writeLayers(t.Context(), filepath.Join(t.TempDir(), "root"), []oci.Layer{
		openedLayer(good, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(good)), nil }),
		openedLayer(good, func(context.Context) (io.ReadCloser, error) { return nil, broken }),
	}, 1<<20, nil, func(Progress) {})
	if !errors.Is(err, broken) || !strings.Contains(fmt.Sprint(err), "layer 2 of 2") {
		t.Errorf("error %v, want %v of layer 2 of 2", err, broken)
	}
}

type closeFunc struct {
	io.Reader
	close func()
}

func (c closeFunc) Close() error { c.close(); return nil }

// What is made of an image without layers here has a layer of all its root, which is
// written once.
func TestLayerOfAllIsKept(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	root := create(t, o)
	o.Name, o.Reference = "changed", "test"
	o.Configure = func(*image.Image) {}
	made := func() (layers []image.Layer, err error) {
		img, err := Create(t.Context(), o)
		if err != nil {
			return nil, err
		}
		return img.Layers, nil
	}
	first, err := made()
	if err != nil || len(first) != 1 || first[0].Digest == "" {
		t.Fatalf("layers %v, %v", first, err)
	}
	b, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := errors.Join(os.Chmod(root, 0o600), os.WriteFile(root, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	second, err := made()
	if err != nil || !slices.EqualFunc(first, second, func(a, b image.Layer) bool { return a.Digest == b.Digest && a.DiffID == b.DiffID }) {
		t.Errorf("layers %v, %v, want %v", second, err, first)
	}
	// A damaged root is no layer.
	if err := os.RemoveAll(o.CacheDir); err != nil {
		t.Fatal(err)
	}
	if layers, err := made(); !errors.Is(err, image.ErrInvalid) || !strings.Contains(err.Error(), image.Rootfs) {
		t.Errorf("layers %v, %v, want %v", layers, err, image.ErrInvalid)
	}
}
