package builder

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goerofs "github.com/erofs/go-erofs"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// GNU tar writes a file with holes in four ways, libarchive and others in one of
// them. Each is the file, and its holes stay.
func TestSparseFormats(t *testing.T) {
	dir := t.TempDir()
	content := strings.Repeat("\x00", 3<<20) + "middle" + strings.Repeat("\x00", 2<<20) + "end"
	f, err := os.Create(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, part := range map[int64]string{3 << 20: "middle", 5<<20 + 6: "end"} {
		if _, err := f.WriteAt([]byte(part), at); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "layer.tar")
			buildertest.Run(t, "tar", append(append([]string{"--sparse"}, strings.Fields(format)...), "-cf", archive, "-C", dir, "holes")...)
			b, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 1<<20 {
				t.Fatalf("tar wrote the holes: %d bytes", len(b))
			}
			root, err := os.Open(create(t, options(t, "oci:"+writeLayout(t, "amd64", b))))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			fsys, err := goerofs.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			got, err := fs.ReadFile(fsys, "holes")
			if err != nil || string(got) != content {
				t.Errorf("the file has %d bytes, %v, want %d", len(got), err, len(content))
			}
			if info, err := root.Stat(); err != nil || info.Size() > 1<<20 {
				t.Errorf("the image has %d bytes, %v: its holes were written", info.Size(), err)
			}
		})
	}
}
