package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// savedLayout is a layout with one image.
func savedLayout(t *testing.T) (dir string, d v1.Descriptor) {
	t.Helper()
	dir = t.TempDir()
	content := "a layer"
	hash, size, err := v1.SHA256(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	layers := []Layer{{MediaType: string(types.OCILayer), Digest: hash, DiffID: hash, Size: size,
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}}
	digest, err := Save(t.Context(), Destination{Kind: "oci", Path: dir, Tag: "latest"}, []byte(`{}`), nil, layers)
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest, err = v1.NewHash(digest); err != nil {
		t.Fatal(err)
	}
	return dir, d
}

// Neither a copy nor a save waits for a FIFO in a layout, or reads a device whole, on
// either side.
func TestLayoutsOfOddFiles(t *testing.T) {
	source, image := savedLayout(t)
	layer, _, err := v1.SHA256(strings.NewReader("a layer"))
	if err != nil {
		t.Fatal(err)
	}
	copies := func(from, to string) func() error {
		return func() error { _, err := Copy(t.Context(), from, to, CopyOptions{}); return err }
	}
	for _, odd := range []string{"index.json", blobName(image.Digest), blobName(layer)} {
		for kind, put := range map[string]func(string) error{
			"FIFO":             func(name string) error { return syscall.Mkfifo(name, 0o600) },
			"link to a device": func(name string) error { return os.Symlink("/dev/zero", name) },
		} {
			dir, _ := savedLayout(t)
			name := filepath.Join(dir, odd)
			if err := errors.Join(os.Remove(name), put(name)); err != nil {
				t.Fatal(err)
			}
			for what, do := range map[string]func() error{
				"copied":      copies("oci:"+dir+":latest", "oci:"+t.TempDir()),
				"copied into": copies("oci:"+source+":latest", "oci:"+dir+":other"),
				"saved into": func() error {
					if odd != "index.json" {
						return ErrInvalid // what is there is not read
					}
					_, err := Save(t.Context(), Destination{Kind: "oci", Path: dir, Tag: "other"}, []byte(`{}`), nil, nil)
					return err
				},
			} {
				ended := make(chan error, 1)
				go func() { ended <- do() }()
				select {
				case err := <-ended:
					if err == nil {
						t.Errorf("%s, a %s, %s: no error", odd, kind, what)
					}
				case <-time.After(time.Minute):
					t.Fatalf("%s, a %s, %s: it is waited for", odd, kind, what)
				}
			}
		}
	}
}

// What is in a layout under the name of a blob, and is not that blob, is not taken for it.
func TestLayoutsOfOtherBlobs(t *testing.T) {
	source, image := savedLayout(t)
	layer, size, err := v1.SHA256(strings.NewReader("a layer"))
	if err != nil {
		t.Fatal(err)
	}
	layers := []Layer{{MediaType: string(types.OCILayer), Digest: layer, DiffID: layer, Size: size,
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("a layer")), nil }}}
	for how, write := range map[string]func(dir string) error{
		"copied": func(dir string) error {
			_, err := Copy(t.Context(), "oci:"+source+":latest", "oci:"+dir+":other", CopyOptions{})
			return err
		},
		"saved": func(dir string) error {
			_, err := Save(t.Context(), Destination{Kind: "oci", Path: dir, Tag: "other"}, []byte(`{}`), nil, layers)
			return err
		},
	} {
		for what, put := range map[string]func(name string, size int64) error{
			"other bytes": func(name string, size int64) error { return os.WriteFile(name, make([]byte, size), 0o644) },
			"a cut file":  func(name string, _ int64) error { return os.Truncate(name, 1) },
			"a link": func(name string, size int64) error {
				elsewhere := filepath.Join(t.TempDir(), "elsewhere")
				return errors.Join(os.WriteFile(elsewhere, make([]byte, size), 0o644), os.Remove(name), os.Symlink(elsewhere, name))
			},
		} {
			for _, h := range []v1.Hash{layer, image.Digest} {
				dir, _ := savedLayout(t)
				name := filepath.Join(dir, blobName(h))
				want, err := os.ReadFile(name)
				if err == nil {
					err = put(name, int64(len(want)))
				}
				if err == nil {
					err = write(dir)
				}
				if err != nil {
					t.Errorf("%s into a layout with %s: %v", how, what, err)
				}
				got, err := os.ReadFile(name)
				info, statErr := os.Lstat(name)
				if err := errors.Join(err, statErr); err != nil || string(got) != string(want) || !info.Mode().IsRegular() {
					t.Errorf("%s into a layout with %s: now %q, %v", how, what, got, err)
				}
			}
		}
	}
}

// What is damaged is not copied.
func TestDamagedLayoutsAreNotCopied(t *testing.T) {
	layer, size, err := v1.SHA256(strings.NewReader("a layer"))
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := savedLayout(t)
	if err := os.WriteFile(filepath.Join(dir, blobName(layer)), make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, to := range map[string]string{"into another": t.TempDir(), "within itself": dir} {
		if _, err := Copy(t.Context(), "oci:"+dir+":latest", "oci:"+to+":other", CopyOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), layer.Hex) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(to, "blobs")); to != dir && err == nil {
			t.Errorf("%s: something was written", what)
		}
	}
}

// What is written to a layout stays in it.
func TestLayoutsWithLinks(t *testing.T) {
	source, _ := savedLayout(t)
	for _, link := range []string{"index.json", "blobs", "blobs/sha256"} {
		dir, _ := savedLayout(t)
		elsewhere := filepath.Join(t.TempDir(), "elsewhere")
		if err := errors.Join(os.Rename(filepath.Join(dir, link), elsewhere), os.Symlink(elsewhere, filepath.Join(dir, link))); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), "oci:"+source+":latest", "oci:"+dir+":other", CopyOptions{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s is a link, copied into: %v", link, err)
		}
		if _, err := Save(t.Context(), Destination{Kind: "oci", Path: dir, Tag: "other"}, []byte(`{}`), nil, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s is a link, saved into: %v", link, err)
		}
	}
}

// A directory that is no layout is said to be none.
func TestCopyOfNoLayout(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nope")} {
		_, err := Copy(t.Context(), "oci:"+dir+":latest", "oci:"+t.TempDir(), CopyOptions{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "not an OCI layout") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// What is read whole is small: an image whose manifest or configuration says or has
// more is refused.
func TestLayoutsOfLargeManifests(t *testing.T) {
	for what, large := range map[string]func(dir string, d v1.Descriptor) string{
		"index.json": func(string, v1.Descriptor) string { return "index.json" },
		"manifest":   func(_ string, d v1.Descriptor) string { return blobName(d.Digest) },
		"configuration": func(dir string, d v1.Descriptor) string {
			var m v1.Manifest
			b, err := os.ReadFile(filepath.Join(dir, blobName(d.Digest)))
			if err = errors.Join(err, json.Unmarshal(b, &m)); err != nil {
				t.Fatal(err)
			}
			return blobName(m.Config.Digest)
		},
	} {
		dir, d := savedLayout(t)
		if err := os.Truncate(filepath.Join(dir, large(dir, d)), 1<<40); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), "oci:"+dir+":latest", "oci:"+t.TempDir(), CopyOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "is longer than") {
			t.Errorf("%s of 1 TiB: %v", what, err)
		}
	}
}

// What a registry says of an image is held against the limits before any of it is
// written.
func TestCopyLimits(t *testing.T) {
	const gib = 1 << 30
	hash := strings.Repeat("0", 64)
	described := func(kind types.MediaType, size int64) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d}`, kind, hash, size)
	}
	image := func(config, layer int64) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, types.OCIManifestSchema1,
			described(types.OCIConfigJSON, config), described(types.OCILayer, layer))
	}
	many := strings.Repeat(described(types.OCIManifestSchema1, 9)+",", maxImages) + described(types.OCIManifestSchema1, 9)
	for name, tt := range map[string]struct {
		kind     types.MediaType
		manifest string
		want     error
		says     string
	}{
		"a layer of 1 TiB":              {types.OCIManifestSchema1, image(2, 1024*gib), ErrTooLarge, "it has 1099511627778"},
		"a layer of less than 0":        {types.OCIManifestSchema1, image(2, -1), ErrInvalid, "a size of -1 bytes"},
		"a configuration of 1 GiB":      {types.OCIManifestSchema1, image(gib, 2), ErrInvalid, "its configuration has 1073741824 bytes"},
		"more images than an index has": {types.OCIImageIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, types.OCIImageIndex, many), ErrInvalid, "more than 1000 images"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v2/":
			case strings.HasSuffix(r.URL.Path, "/manifests/latest"):
				w.Header().Set("Content-Type", string(tt.kind))
				_, _ = io.WriteString(w, tt.manifest)
			case strings.Contains(r.URL.Path, "/manifests/"):
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				_, _ = io.WriteString(w, image(2, 2))
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		out := filepath.Join(t.TempDir(), "out")
		_, err := Copy(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/x:latest", "oci:"+out, CopyOptions{MaxSize: gib})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was written: %v", name, err)
		}
		server.Close()
	}
}
