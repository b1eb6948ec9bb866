package builder

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	goerofs "github.com/erofs/go-erofs"

	dockerfiles "github.com/abdul-abdi/lumina/builder/dockerfile/files"
)

// A root with a directory in itself, which somebody else made, gives no walk through it
// that does not end.
func TestDirectoryInItself(t *testing.T) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, name := range []string{"d/", "d/e/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	root := rootOf(t, &layer)
	number := func(name string) int64 {
		fsys, err := goerofs.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		info, err := fs.Stat(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*goerofs.Stat).Ino
	}
	d, e := number("d"), number("d/e")
	content, err := os.ReadFile(root.Name())
	if err != nil {
		t.Fatal(err)
	}
	// The entry of e in d: its inode's number, where its name begins, its type.
	entry := func(n int64) []byte {
		return append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint64(nil, uint64(n)), 3*12+3), 2)
	}
	if bytes.Count(content, entry(e)) != 1 {
		t.Fatalf("%d entries look like e's", bytes.Count(content, entry(e)))
	}
	if _, err := root.WriteAt(entry(d), int64(bytes.Index(content, entry(e)))); err != nil {
		t.Fatal(err)
	}
	if number("d/e") != d {
		t.Fatal("d is not in itself")
	}
	const want = `its directory "d" is "d/e", too`
	if err := writeRootTar(t.Context(), root, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("writeRootTar() = %v, want %q", err, want)
	}
	img, err := dockerfiles.OpenImage(root.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := dockerfiles.Walk(img, "d", func(string, dockerfiles.Info) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Walk() = %v, want %q", err, want)
	}
}
