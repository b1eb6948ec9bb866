package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
	"github.com/abdul-abdi/lumina/builder/recipe"
)

// A recipe's files go where the base's links lead, and what leads to them stays as it is.
func TestRecipeFilesUponABase(t *testing.T) {
	base := layer(t, dir("usr", 0o755), dir("usr/bin", 0o711),
		tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"},
		tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "/usr/lib"}, // leads to nothing yet
		tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777},
		tar.Header{Name: "web", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 33, Gid: 34, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.xattr.trusted.overlay.opaque": "y"}},
		file("plain", "x"))
	for _, tt := range []struct {
		files []recipe.File
		want  string
	}{
		{[]recipe.File{{Path: "/bin/hello", Content: "hi", Mode: "0755"}, {Path: "/tmp/a"}}, "usr/ 755 0:0|usr/bin/ 711 0:0|usr/bin/hello 755 0:0|tmp/ 1777 0:0|tmp/a 644 0:0"},
		{[]recipe.File{{Path: "/web/n/x", UID: 5}, {Path: "/web/n/y"}}, "web/ 700 33:34 trusted.overlay.opaque=y user.a=b|web/n/ 755 0:0|web/n/x 644 5:0|web/n/y 644 0:0"},
		{[]recipe.File{{Path: "/lib/x"}}, "usr/ 755 0:0|usr/lib/ 755 0:0|usr/lib/x 644 0:0"},
		{[]recipe.File{{Path: "/l", Link: "web"}, {Path: "/l/x"}}, "l 777 0:0|web/ 700 33:34 trusted.overlay.opaque=y user.a=b|web/x 644 0:0"},
		{[]recipe.File{{Path: "/plain/x"}}, "file /plain/x: /plain is not a directory"},
		{[]recipe.File{{Path: "/bin"}}, "bin 644 0:0"}, // in place of the link
		{[]recipe.File{{Path: "/tmp"}}, "file /tmp: there is a directory"},
	} {
		w := erofs.NewWriter(nowhere{})
		below := flatten.New(w)
		if err := below.Apply(t.Context(), bytes.NewReader(base)); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		err := writeFiles(tt.files, below.Root(), &b)
		var got []string
		for layer := tar.NewReader(&b); err == nil; {
			var h *tar.Header
			if h, err = layer.Next(); errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf("%s %o %d:%d", h.Name, h.Mode, h.Uid, h.Gid)
			for _, name := range []string{"trusted.overlay.opaque", "user.a"} {
				if v, ok := h.PAXRecords["SCHILY.xattr."+name]; ok {
					line += " " + name + "=" + v
				}
			}
			got = append(got, line)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			got = []string{err.Error()}
		}
		if diff := cmp.Diff(strings.Split(tt.want, "|"), got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.files, diff)
		}
	}
}
