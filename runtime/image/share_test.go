package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// described makes an image of a directory with these files and layers.
func described(files map[string]string, layers ...string) func(dir string) error {
	return func(dir string) error {
		img := &Image{Schema: Schema, Architecture: "amd64", Files: map[string]File{}}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), FileMode); err != nil {
				return err
			}
			f, err := Digest(context.Background(), filepath.Join(dir, name))
			if err != nil {
				return err
			}
			img.Files[name] = f
		}
		for _, l := range layers {
			img.Layers = append(img.Layers, Layer{DiffID: l})
		}
		return img.Write(dir)
	}
}

func installShared(t *testing.T, s *Store, name string, build func(dir string) error) {
	t.Helper()
	if err := s.Install(t.Context(), name, build); err != nil {
		t.Fatal(err)
	}
}

// isShared says whether two images have the same file, and not a copy.
func isShared(t *testing.T, s *Store, a, b, file string) bool {
	t.Helper()
	one, err := os.Stat(filepath.Join(s.dir, a, file))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Stat(filepath.Join(s.dir, b, file))
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(one, other)
}

// Images have equal files once, and each is whole without the other.
func TestEqualFilesAreShared(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "images"))
	files := map[string]string{Kernel: "a kernel", Initramfs: "init", Rootfs: "a root"}
	installShared(t, s, "one", described(files))
	installShared(t, s, "same", described(files))
	files[Rootfs] = "another root"
	installShared(t, s, "other", described(files))
	for _, tt := range []struct {
		a, b, file string
		want       bool
	}{
		{"one", "same", Kernel, true}, {"one", "same", Rootfs, true}, {"one", "other", Kernel, true}, {"one", "other", Rootfs, false},
		// Its time says when an image was begun.
		{"one", "same", Initramfs, false},
	} {
		if got := isShared(t, s, tt.a, tt.b, tt.file); got != tt.want {
			t.Errorf("%s of %s and %s: shared is %v, want %v", tt.file, tt.a, tt.b, got, tt.want)
		}
	}
	u, err := s.Usage()
	if want := (Usage{Count: 3, Bytes: 3*(8+4) + 6 + 6 + 12, Shared: 8 + 8 + 6}); err != nil || u != want {
		t.Errorf("Usage() = %+v, %v, want %+v", u, err, want)
	}

	// What another says of its file may be wrong by now.
	if err := os.WriteFile(filepath.Join(s.dir, "other", Rootfs), []byte("another rooT"), FileMode); err != nil {
		t.Fatal(err)
	}
	installShared(t, s, "again", described(files))
	if isShared(t, s, "other", "again", Rootfs) {
		t.Error("a damaged file is shared")
	}
	for _, name := range []string{"one", "same"} {
		if err := s.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.Open("again")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Verify(t.Context()); err != nil {
		t.Errorf("without the others: %v", err)
	}
}

func TestRepeated(t *testing.T) {
	for _, tt := range []struct {
		name    string
		extents []extent
		want    int64
	}{
		{"none", nil, 0},
		{"apart", []extent{{10, 5}, {0, 10}, {15, 1}}, 0},
		{"twice", []extent{{0, 10}, {0, 10}}, 10},
		{"three times", []extent{{0, 10}, {0, 10}, {0, 10}}, 20},
		{"in part", []extent{{5, 10}, {0, 10}}, 5},
		{"within", []extent{{0, 100}, {10, 5}, {90, 20}}, 15},
	} {
		if got := repeated(tt.extents); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
