package flatten

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

func TestCleanName(t *testing.T) {
	tests := []struct {
		name, want string
		ok         bool
	}{
		{"a/b", "a/b", true},
		{"./a/./b//", "a/b", true},
		{"/a", "a", true}, // of the image's root: some builders write it so
		{".", "", true},
		{"a..b/..c", "a..b/..c", true},
		{"..", "", false},
		{"a/../b", "", false},
		{"/..", "", false},
		{"a\x00b", "", false},
	}
	for _, tt := range tests {
		got, err := cleanName(tt.name)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("cleanName(%q) = %q, %v, want %q, ok %v", tt.name, got, err, tt.want, tt.ok)
		}
	}
}

// FuzzApply applies any bytes as two layers. Whatever they are, the image is
// written or refused, and no name in it leaves its directory.
func FuzzApply(f *testing.F) {
	archive := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			_ = w.WriteHeader(&h)
			_, _ = w.Write(make([]byte, h.Size))
		}
		w.Close()
		return b.Bytes()
	}
	f.Add(archive(tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Size: 5000}), archive(tar.Header{Name: "d/.wh.f"}))
	f.Add(archive(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}), archive(tar.Header{Name: "l/f", Size: 3}))
	f.Add(archive(tar.Header{Name: "a", Size: 3}, tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}), archive(tar.Header{Name: ".wh..wh..opq"}))
	f.Add(archive(tar.Header{Name: "a", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}), []byte("x"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		file, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		w := erofs.NewWriter(file)
		tree := New(w)
		// A few bytes can ask for a terabyte of zeros.
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		for _, l := range [][]byte{one, two} {
			if tree.Apply(ctx, bytes.NewReader(l)) != nil {
				return
			}
		}
		checkNames(t, tree.Root())
		if err := w.Close(tree.Root(), [16]byte{}); err != nil {
			t.Skip(err)
		}
	})
}

func checkNames(t *testing.T, d *erofs.Inode) {
	for name, i := range d.Entries {
		if name == "" || name == "." || name == ".." || bytes.ContainsAny([]byte(name), "/\x00") {
			t.Fatalf("entry %q", name)
		}
		if i.IsDir() {
			checkNames(t, i)
		}
	}
}
