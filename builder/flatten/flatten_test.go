package flatten

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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

// sparseEntry is an entry of any size that takes two blocks of the archive:
// the PAX form of GNU tar's sparse files, all hole.
func sparseEntry(name string, size int64) []byte {
	var b bytes.Buffer
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		n += len(strconv.Itoa(n + 2))
		return strconv.Itoa(n) + " " + key + "=" + value + "\n"
	}
	block := func(name string, kind byte, content string) {
		var h [512]byte
		copy(h[:], name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        %c", len(content), kind))
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h[:])
		b.WriteString(content)
		b.Write(make([]byte, -len(content)&511))
	}
	block("pax", 'x', record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+
		record("GNU.sparse.name", name)+record("GNU.sparse.realsize", strconv.FormatInt(size, 10)))
	block(name, '0', "0\n"+strings.Repeat("\x00", 510))
	return b.Bytes()
}

// What a few bytes of a layer can ask for is bounded: it would else take all
// memory, or forever.
func TestApplyBounds(t *testing.T) {
	archive := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes() // without an end
	}
	const room = 1000 // what a tree that is nearly full still takes
	tests := []struct {
		name  string
		layer []byte
		want  string
	}{
		{"file of 8 EiB", append(sparseEntry("b", 1), sparseEntry("c", math.MaxInt64)...), "files of more than"},
		{"files of more than 1 TiB together", append(sparseEntry("b", 1<<20), sparseEntry("c", 1<<40)...), "files of more than"},
		{"directories that no entry is of", archive(tar.Header{Name: strings.Repeat("d/", room) + "f", Typeflag: tar.TypeReg}), "entries"},
		{"long names", archive(tar.Header{Name: strings.Repeat("n/", 400) + strings.Repeat("n", 201)}), "names, links"},
		{"long symbolic link", archive(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("t", room)}), "names, links"},
		{"long extended attributes", archive(tar.Header{Name: "d", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", room)}}), "names, links"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "image"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tree := New(erofs.NewWriter(f))
			if tree.text = maxText - room; tt.want == "entries" {
				tree.entries, tree.text = maxEntries-room, 0
			}
			err = tree.Apply(context.Background(), bytes.NewReader(tt.layer))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply() = %.200v, want ErrInvalid with %q", err, tt.want)
			}
		})
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
	f.Add(sparseEntry("a", 3<<20), sparseEntry("b", math.MaxInt64))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		file, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		w := erofs.NewWriter(file)
		tree := New(w)
		tree.data = maxData - 16<<20 // a few bytes can ask for a terabyte of zeros
		for _, l := range [][]byte{one, two} {
			if tree.Apply(context.Background(), bytes.NewReader(l)) != nil {
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
