package release_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Any byte of any file that is downloaded counts: a flipped one is refused, in
// one line, and leaves nothing.
func TestAnyFlippedByteIsRefused(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	if _, err := w.pull(t); err != nil {
		t.Fatal(err)
	}
	// What a pull downloads.
	var names []string
	for _, r := range w.server.Requests() {
		if r.Storage && r.Method == http.MethodGet {
			names = append(names, filepath.Base(r.Path))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if want := []string{"catalog.json", "catalog.json.minisig", "default-amd64.tar.zst.001", "default-amd64.tar.zst.002"}; len(names) < 4 || !slices.Equal(names[:4], want) {
		t.Fatalf("it downloads %v", names)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for _, name := range names {
		good := w.server.Asset("v1", name)
		positions := []int{0, len(good) - 1}
		for range 30 {
			positions = append(positions, random.IntN(len(good)))
		}
		for _, position := range positions {
			bad := bytes.Clone(good)
			bad[position] ^= byte(1 + random.IntN(255))
			w.server.SetAsset("v1", name, bad)
			w.newHome(t)
			_, err := w.pull(t)
			if !errors.Is(err, sign.ErrSignature) && !errors.Is(err, release.ErrDigest) && !errors.Is(err, catalog.ErrInvalid) {
				t.Fatalf("%s, byte %d, %02x for %02x: %v", name, position, bad[position], good[position], err)
			}
			if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "v1") {
				t.Errorf("%s: an unclear error: %v", name, err)
			}
			if left := w.tree(t); len(left) != 0 {
				t.Fatalf("%s, byte %d: it leaves %v", name, position, left)
			}
		}
		w.server.SetAsset("v1", name, good)
	}
	if _, err := w.pull(t); err != nil {
		t.Errorf("when all is good again: %v", err)
	}
}

// What is not the catalog's is refused though its signature is good.
func TestSignedButWrong(t *testing.T) {
	comment := func(tag string) string { return "lumina release " + tag + " catalog.json" }
	tests := []struct {
		name   string
		change func(t *testing.T, w *world, c *catalog.Catalog) (text, signature []byte)
		want   string
	}{
		{"a placeholder", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			c.Images[0].Parts[0].SHA256 = strings.Repeat("0", 64)
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "is a placeholder"},
		{"a missing digest", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.ReplaceAll(b, []byte(`"sha256":"`+c.Images[0].Parts[0].SHA256+`"`), []byte(`"x":""`))
			return b, w.key.Sign(b, comment("v1"))
		}, "not a SHA-256"},
		{"the catalog of another release", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			w.publish(t, "v0")
			return w.server.Asset("v0", catalog.Name), w.server.Asset("v0", catalog.Signature)
		}, "want \"lumina release v1 catalog.json\""},
		{"another file", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			f := c.Images[0].Files[image.Kernel]
			f.SHA256 = c.Images[0].Files[image.Rootfs].SHA256
			c.Images[0].Files[image.Kernel] = f
			b, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "kernel has another digest"},
		{"a smaller size", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			f := c.Images[0].Files[image.Kernel]
			f.Size--
			c.Images[0].Files[image.Kernel] = f
			c.Images[0].Size--
			b, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "in place of kernel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.name == "the catalog of another release" {
				w.publish(t, "v0")
			}
			w.publish(t, "v1")
			c, err := catalog.Parse(w.server.Asset("v1", catalog.Name))
			if err != nil {
				t.Fatal(err)
			}
			text, signature := tt.change(t, w, c)
			w.server.SetAsset("v1", catalog.Name, text)
			w.server.SetAsset("v1", catalog.Signature, signature)
			_, err = w.pull(t)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if left := w.tree(t); len(left) != 0 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
}

func TestPullWithoutTrust(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	good := w.from.Keys
	w.from.Keys = nil
	w.server.Requests()
	if _, err := w.pull(t); err == nil || !strings.Contains(err.Error(), "LUMINA_PUBLIC_KEY") {
		t.Errorf("%v", err)
	}
	if r := w.server.Requests(); len(r) != 0 {
		t.Errorf("it asks the server: %v", r)
	}
	_, w.from.Keys = keys(t)
	if _, err := w.pull(t); !errors.Is(err, sign.ErrSignature) {
		t.Errorf("%v", err)
	}
	w.from.Keys, w.from.Tag = good, "v2"
	if _, err := w.pull(t); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
