package flatten

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// newTree makes a tree that is written to a temporary file.
func newTree(t *testing.T) (*Tree, *erofs.Writer, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := erofs.NewWriter(f)
	return New(w), w, f
}

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
		{"a/../b", "b", true},
		{"a/b/../../c/.", "c", true},
		{"a/..", "", true},
		{"a/../../b", "", false},
		{"a/../..", "", false},
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
	// Each link leads on from where the one before it ended, so that no name is
	// long.
	var deep []tar.Header
	for n := range 3 {
		at, down := strings.Repeat("l/", n), strings.Repeat("d/", 1000)+"e"
		deep = append(deep, tar.Header{Name: at + down, Typeflag: tar.TypeDir}, tar.Header{Name: at + "l", Typeflag: tar.TypeSymlink, Linkname: down})
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
		{"directories in directories without end", archive(deep...), "in each other"},
		{"long names", archive(tar.Header{Name: strings.Repeat("n/", 400) + strings.Repeat("n", 201)}), "names, links"},
		{"long symbolic link", archive(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("t", room)}), "names, links"},
		{"long extended attributes", archive(tar.Header{Name: "d", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", room)}}), "names, links"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, _, _ := newTree(t)
			switch tt.want {
			case "entries":
				tree.entries = maxEntries - room
			case "names, links":
				tree.text = maxText - room
			}
			err := tree.Apply(context.Background(), bytes.NewReader(tt.layer))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply() = %.200v, want ErrInvalid with %q", err, tt.want)
			}
		})
	}
}

// A marker leaves what its own layer has, however often it comes and whatever
// comes in between.
func TestOpaqueMarkers(t *testing.T) {
	archive := func(names ...string) *bytes.Buffer {
		b := new(bytes.Buffer)
		w := tar.NewWriter(b)
		for _, name := range names {
			h := tar.Header{Name: name, Typeflag: tar.TypeReg}
			if strings.HasSuffix(name, "/") {
				h.Typeflag = tar.TypeDir
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b
	}
	lower := []string{"d/a", "d/b", "d/s/c", "d/t/e"}
	tests := []struct {
		name  string
		upper []string
		want  []string
	}{
		{"alone", []string{"d/.wh..wh..opq"}, nil},
		{"first", []string{"d/.wh..wh..opq", "d/a", "d/s/new"}, []string{"a", "s", "s/new"}},
		{"last", []string{"d/a", "d/s/new", "d/.wh..wh..opq"}, []string{"a", "s", "s/new"}},
		{"several", []string{"d/a", "d/.wh..wh..opq", "d/new", "d/.wh..wh..opq", "d/s/new", "d/.wh..wh..opq"}, []string{"a", "new", "s", "s/new"}},
		{"of a directory and one in it", []string{"d/s/.wh..wh..opq", "d/t/new", "d/.wh..wh..opq"}, []string{"s", "t", "t/new"}},
		{"of a directory that is replaced", []string{"d/.wh..wh..opq", "d", "d/", "d/new", "d/.wh..wh..opq"}, []string{"new"}},
		{"and a whiteout of the same", []string{"d/new", ".wh.d", "d/.wh..wh..opq", ".wh.d"}, []string{"new"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, _, _ := newTree(t)
			// In a third layer again: what one layer pruned the next one has again.
			for n, l := range [][]string{lower, tt.upper, {"d/later"}, {"d/.wh..wh..opq"}} {
				if err := tree.Apply(context.Background(), archive(l...)); err != nil {
					t.Fatal(err)
				}
				got := names(tree.Root().Entries["d"], "")
				switch {
				case n == 1 && !slices.Equal(got, tt.want):
					t.Errorf("d holds %q, want %q", got, tt.want)
				case n == 3 && len(got) > 0:
					t.Errorf("d holds %q after a layer that empties it", got)
				}
			}
		})
	}
}

func names(d *erofs.Inode, at string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(d.Entries)) {
		all = append(all, at+name)
		if e := d.Entries[name]; e.IsDir() {
			all = append(all, names(e, at+name+"/")...)
		}
	}
	return all
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
		tree, w, _ := newTree(t)
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
