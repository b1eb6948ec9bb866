package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
)

// entry is a file of an archive.
type entry struct {
	Header  tar.Header
	Content string
}

// rootOf is a root file system of one layer.
func rootOf(t *testing.T, layer io.Reader) *os.File {
	t.Helper()
	root, err := os.Create(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	image := erofs.NewWriter(root)
	tree := flatten.New(image)
	if err := tree.Apply(t.Context(), layer); err != nil {
		t.Fatal(err)
	}
	if err := image.Close(tree.Root(), [16]byte{}); err != nil {
		t.Fatal(err)
	}
	return root
}

// What is made of a root file system whose layers are not at hand has everything
// that the layers had.
func TestRootTarKeepsEverything(t *testing.T) {
	const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	at := time.Unix(1700000000, 5000)
	want := []entry{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "dev/", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/disk", Mode: 0o660, Gid: 6, Devmajor: 259, Devminor: 70000}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "dev/initctl", Mode: 0o600}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o400, Uid: 70000, Gid: 70001}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "ping", Mode: 0o755, Size: 3, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}}, "png"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "shared/", Mode: 0o2775, Gid: 50}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "sudo", Mode: 0o4755, Size: 4}, "sudo"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "sudoedit", Linkname: "sudo", Mode: 0o4755}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "symlink", Linkname: "/nowhere/at all", Mode: 0o777}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "wall", Mode: 0o2755, Gid: 5, Size: 4}, "wall"},
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i := range want {
		h := &want[i].Header
		h.ModTime, h.Format = at, tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, want[i].Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	root := rootOf(t, &layer)
	var out bytes.Buffer
	if err := writeRootTar(t.Context(), root, &out); err != nil {
		t.Fatal(err)
	}
	var got []entry
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry{*h, string(content)})
	}
	// Of PAX records, those are compared that the header has no field for.
	for _, e := range [][]entry{want, got} {
		for i := range e {
			h := &e[i].Header
			for k := range h.PAXRecords {
				if k != "SCHILY.xattr.security.capability" {
					delete(h.PAXRecords, k)
				}
			}
			if len(h.PAXRecords) == 0 {
				h.PAXRecords = nil
			}
		}
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(tar.Header{}, "Xattrs", "Format")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
