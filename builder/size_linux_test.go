package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// repeated is an archive of one file that compresses a thousandfold.
func repeated(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, &repeat{block: bytes.Repeat([]byte("x"), 4096)}, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// However small what is fetched, an image takes no more than it may, and one that
// would leaves nothing.
func TestMaxSize(t *testing.T) {
	const limit = 4 << 20
	small := writeLayout(t, "amd64", layer(t, file("a", "x")))
	zeros := layer(t, file("zeros", strings.Repeat("\x00", 3*limit)))
	tests := []struct {
		name   string
		change func(o *Options)
		ok     bool
	}{
		{"small", func(*Options) {}, true},
		{"holes", func(o *Options) { o.Reference = "oci:" + writeLayout(t, "amd64", zeros) }, true},
		{"a large file in few bytes", func(o *Options) { o.Reference = "oci:" + writeLayout(t, "amd64", repeated(t, 2*limit)) }, false},
		{"in several layers", func(o *Options) {
			o.Reference = "oci:" + writeLayout(t, "amd64", repeated(t, limit/2), layer(t, file("b", strings.Repeat("y", limit*3/4))))
		}, false},
		{"a compressed archive", func(o *Options) {
			archive := filepath.Join(t.TempDir(), "a.tar.gz")
			if err := os.WriteFile(archive, gzipped(repeated(t, 2*limit)), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Reference = "docker-archive:" + archive
		}, false},
		{"a step that writes without an end", func(o *Options) {
			o.Steps = []string{"yes > /large"}
			o.RunStep = func(_ context.Context, _ Step, w io.Writer) error {
				_, err := io.Copy(w, &repeat{block: []byte("yes\n")})
				return err
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, "oci:"+small)
			o.MaxSize = limit
			tt.change(&o)
			_, err := Create(context.Background(), o)
			if tt.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrTooLarge) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Create() = %v, want ErrTooLarge in a line", err)
			}
			for _, f := range strings.Fields(files(filepath.Dir(o.CacheDir))) {
				// Layers of the base may stay.
				if info, err := os.Stat(filepath.Dir(o.CacheDir) + f); err == nil && info.IsDir() && !strings.Contains(f, ".tmp-") {
					continue
				}
				if !strings.Contains(f, "cache/blobs/sha256/") || strings.Contains(f, "fetch-") {
					t.Errorf("left behind: %s", f)
				}
			}
		})
	}
}

// What a step gave that nobody can apply is not in the cache: it is run again.
func TestBrokenStepsAreNotKept(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "x"))))
	ran, said := 0, []byte(strings.Repeat("junk", 1000))
	o.Steps = []string{"x"}
	o.RunStep = func(_ context.Context, _ Step, w io.Writer) error {
		ran++
		_, err := w.Write(said)
		return err
	}
	for n := 1; n <= 2; n++ {
		if _, err := Create(context.Background(), o); err == nil || ran != n {
			t.Fatalf("build %d: error %v, the step was run %d times", n, err, ran)
		}
	}
	said = layer(t, file("b", "y"))
	if _, err := Create(context.Background(), o); err != nil {
		t.Error(err)
	}
}

// Without a limit it is half of what is free.
func TestDefaultMaxSize(t *testing.T) {
	s := image.NewStore(filepath.Join(t.TempDir(), "not/there/yet"))
	free, err := s.Free()
	if err != nil || free <= 0 {
		t.Fatalf("Free() = %d, %v", free, err)
	}
	if got, err := s.MaxSize(0); err != nil || got < free/4 || got > free {
		t.Errorf("MaxSize(0) = %d, %v, with %d free", got, err, free)
	}
	if got, err := s.MaxSize(5); err != nil || got != 5 {
		t.Errorf("MaxSize(5) = %d, %v", got, err)
	}
}
