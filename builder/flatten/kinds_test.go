package flatten

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// tarOf is an archive of entries; a file's content is its record "content".
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		h.PAXRecords = maps.Clone(h.PAXRecords)
		delete(h.PAXRecords, "content")
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lines are a tree's names, with what shows which file each is.
func lines(d *erofs.Inode, at string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(d.Entries)) {
		i := d.Entries[name]
		line := at + name
		switch i.Type() {
		case erofs.TypeDir:
			line += "/"
		case erofs.TypeRegular:
			line += fmt.Sprintf(" %d", i.Size())
		case erofs.TypeSymlink:
			line += " -> " + i.Target
		case erofs.TypeChar:
			line += fmt.Sprintf(" char %d:%d", i.Major, i.Minor)
		}
		if i.Links > 1 {
			line += fmt.Sprintf(" links %d", i.Links)
		}
		for _, x := range slices.Sorted(maps.Keys(i.Xattrs)) {
			line += " " + x + "=" + i.Xattrs[x]
		}
		all = append(all, line)
		if i.IsDir() {
			all = append(all, lines(i, at+name+"/")...)
		}
	}
	return all
}

// What builders of layers write, in the ways that each of them has.
func TestKindsOfEntries(t *testing.T) {
	file := func(name, content string, records ...string) tar.Header {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"content": content}}
		for n := 0; n < len(records); n += 2 {
			h.PAXRecords[records[n]] = records[n+1]
		}
		return h
	}
	link := func(name, target string, kind byte) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: kind}
	}
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	tests := []struct {
		name   string
		layers [][]tar.Header
		want   []string
		err    string
	}{
		{"names that take back a part", [][]tar.Header{{dir("a"), file("a/../b", "1"), file("./c/./d", "22"), file("/e//f", "333")}},
			[]string{"a/", "b 1", "c/", "c/d 2", "e/", "e/f 3"}, ""},
		{"a name above the root", [][]tar.Header{{file("a/../../b", "")}}, nil, "leads out of the image"},
		{"hard link that takes back a part", [][]tar.Header{{file("a/x", "1"), link("b", "a/../a/./x", tar.TypeLink)}}, []string{"a/", "a/x 1 links 2", "b 1 links 2"}, ""},
		{"hard link above the root", [][]tar.Header{{file("x", "1"), link("b", "../x", tar.TypeLink)}}, nil, "leads out of the image"},
		{"hard link to what comes later", [][]tar.Header{{link("b", "x", tar.TypeLink), file("x", "1")}}, nil, "not a file of the image"},
		{"hard link to a hard link", [][]tar.Header{{file("x", "1"), link("y", "x", tar.TypeLink), link("z", "y", tar.TypeLink)}}, []string{"x 1 links 3", "y 1 links 3", "z 1 links 3"}, ""},
		{"hard link to what it replaces", [][]tar.Header{{file("x", "1"), link("x", "x", tar.TypeLink)}}, []string{"x 1"}, ""},
		{"hard link to a file of the layer below, which is replaced", [][]tar.Header{{file("x", "1")}, {link("y", "x", tar.TypeLink), file("x", "22")}}, []string{"x 2", "y 1"}, ""},
		{"path through a link", [][]tar.Header{{dir("usr/lib"), link("lib", "usr/lib", tar.TypeSymlink)}, {file("lib/so", "1")}}, []string{"lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so 1"}, ""},
		{"path through a link above the root", [][]tar.Header{{link("up", "../../../../etc", tar.TypeSymlink), file("up/passwd", "1")}}, []string{"etc/", "etc/passwd 1", "up -> ../../../../etc"}, ""},
		{"a link made a directory", [][]tar.Header{{dir("usr"), link("l", "usr", tar.TypeSymlink)}, {dir("l"), file("l/x", "1")}}, []string{"l/", "l/x 1", "usr/"}, ""},
		{"a directory made a file and back", [][]tar.Header{{file("d/x", "1")}, {file("d", "22")}, {file("d2", ""), dir("d"), file("d/y", "333")}}, []string{"d/", "d/y 3", "d2 0"}, ""},
		{"a file on the way", [][]tar.Header{{file("f", ""), file("f/x", "")}}, nil, "not a directory"},
		{"what aufs kept", [][]tar.Header{{file(".wh..wh.aufs", ""), dir(".wh..wh.orph"), file(".wh..wh.orph/0", "lost"), dir(".wh..wh.plnk"), file(".wh..wh.plnk/9.1", "linked"),
			link("a", ".wh..wh.plnk/9.1", tar.TypeLink), link("b", "/.wh..wh.plnk/9.1", tar.TypeLink), file("d/.wh..wh.x", "")}}, []string{"a 6 links 2", "b 6 links 2"}, ""},
		{"what aufs kept, through a link", [][]tar.Header{{file("etc/passwd", "1"), link(".wh..wh.plnk", "etc", tar.TypeSymlink), file(".wh..wh.plnk/passwd", "evil")}}, []string{"etc/", "etc/passwd 1"}, ""},
		{"what aufs kept, of the layer before", [][]tar.Header{{file(".wh..wh.plnk/9.1", "x")}, {link("a", ".wh..wh.plnk/9.1", tar.TypeLink)}}, nil, "not a file of the image"},
		{"an opaque mark", [][]tar.Header{{file("d/x", "1")}, {file("d/.wh..wh..opq", ""), file("d/y", "22")}}, []string{"d/", "d/y 2"}, ""},
		{"an overlay's marks are content", [][]tar.Header{
			{file("d/x", "1"), file("w", "1")},
			{tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}},
				tar.Header{Name: "c", Typeflag: tar.TypeChar}, file("r", "1", "SCHILY.xattr.trusted.overlay.redirect", "/etc")}},
			[]string{"c char 0:0", "d/ trusted.overlay.overlay.opaque=y", "d/x 1", "r 1 trusted.overlay.overlay.redirect=/etc", "w 1"}, ""},
		{"attributes as libarchive writes them", [][]tar.Header{{file("a", "1", "LIBARCHIVE.xattr.user.a%20b", "aGk", "LIBARCHIVE.xattr.user.both", "eA", "SCHILY.xattr.user.both", "y"),
			file("b", "1", "LIBARCHIVE.xattr.user.x", "!", "LIBARCHIVE.xattr.%zz", "aGk", "LIBARCHIVE.xattr.user.padded", "aGk=")}},
			[]string{"a 1 user.a b=hi user.both=y", "b 1 user.padded=hi"}, ""},
		{"contiguous files", [][]tar.Header{{{Name: "c", Typeflag: tar.TypeCont}}}, []string{"c 0"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, w, _ := newTree(t)
			var err error
			for _, l := range tt.layers {
				if err = tree.Apply(context.Background(), bytes.NewReader(tarOf(t, l...))); err != nil {
					break
				}
			}
			if tt.err != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Apply() = %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(tree.Root(), ""); !slices.Equal(got, tt.want) {
				t.Errorf("the tree is\n%q, want\n%q", got, tt.want)
			}
			if err := w.Close(tree.Root(), [16]byte{1}); err != nil {
				t.Error(err)
			}
		})
	}
}
