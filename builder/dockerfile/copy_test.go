package dockerfile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// archive is a tar archive with some symbolic links and files.
func archive(t testing.TB, zip bool, entries ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	var out io.WriteCloser = nopCloser{&b}
	if zip {
		out = gzip.NewWriter(&b)
	}
	w := tar.NewWriter(out)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "of " + h.Name
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestCopy(t *testing.T) {
	b := newBench(t)
	b.write(t, "links.tar", archive(t, false,
		tar.Header{Name: "bin", Linkname: "usr/bin", Typeflag: tar.TypeSymlink},
		tar.Header{Name: "abs", Linkname: "/usr/bin", Typeflag: tar.TypeSymlink},
		tar.Header{Name: "up", Linkname: "../../../etc", Typeflag: tar.TypeSymlink}), 0o644)
	b.write(t, "f.tar.gz", archive(t, true,
		tar.Header{Name: "t/", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 5, Gid: 6},
		tar.Header{Name: "t/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8},
		tar.Header{Name: "t/h", Typeflag: tar.TypeLink, Linkname: "t/f"}), 0o644)
	b.write(t, "evil.tar", archive(t, false, tar.Header{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644}), 0o644)
	b.write(t, "not.tar", "BZh not an archive", 0o644)
	if _, err := b.build(t, "base", base); err != nil {
		t.Fatal(err)
	}
	// The same without ONBUILD, which is a test's own.
	if _, err := b.build(t, "plain", strings.ReplaceAll(base, "ONBUILD COPY a.txt /onbuild\n", "")); err != nil {
		t.Fatal(err)
	}
	baseHas := b.list(t, "plain")
	for _, tt := range []struct {
		name, text string
		want       string // what there is besides the base
	}{
		{"a file", "COPY a.txt /x", `x 0644 0:0 "a"`},
		{"a file into a directory", "COPY a.txt /n/", `n 0755 0:0 dir|n/a.txt 0644 0:0 "a"`},
		{"a file into a directory that is there", "COPY a.txt /etc", `etc/a.txt 0644 0:0 "a"`},
		{"through a link to a directory", "COPY b.sh /bin", `usr/bin/b.sh 0755 0:0 "b"`},
		{"through an absolute link", "COPY b.sh /abs/n/x", `usr/bin/n 0755 0:0 dir|usr/bin/n/x 0755 0:0 "b"`},
		{"through a link that leads above the root", "COPY b.sh /up/", `etc/b.sh 0755 0:0 "b"`},
		{"a directory's content", "COPY d /n", `n 0755 0:0 dir|n/link -> one|n/one 0600 0:0 "1"|n/same 0600 0:0 "1" = n/one|n/sub 0750 0:0 dir|n/sub/two 0644 0:0 "2"`},
		{"a link to a directory is followed", "COPY dirlink/sub /n", `n 0755 0:0 dir|n/two 0644 0:0 "2"`},
		{"several", "COPY a.txt b.sh /n/", `n 0755 0:0 dir|n/a.txt 0644 0:0 "a"|n/b.sh 0755 0:0 "b"`},
		{"a pattern", "COPY d/s*/t?o [a]*.txt /n/", `n 0755 0:0 dir|n/a.txt 0644 0:0 "a"|n/two 0644 0:0 "2"`},
		{"patterns that match nothing", "COPY a.txt none* d/no*/x /n/\nCOPY none* /m/\nCOPY --parents none* d/on? /p/", `n 0755 0:0 dir|n/a.txt 0644 0:0 "a"|p 0755 0:0 dir|p/d 0755 0:0 dir|p/d/one 0600 0:0 "1"`},
		{"relative to WORKDIR", "WORKDIR /w\nWORKDIR v\nCOPY a.txt .", `w 0755 0:0 dir|w/v 0755 0:0 dir|w/v/a.txt 0644 0:0 "a"`},
		{"WORKDIR of a user", "USER web\nWORKDIR /w", `w 0755 33:34 dir`},
		{"owner by name", "COPY --chown=web a.txt /n/", `n 0755 33:34 dir|n/a.txt 0644 33:34 "a"`},
		{"owner and group by name", "COPY --chown=web:www d/sub/two /two", `two 0644 33:77 "2"`},
		{"owner by number", "COPY --chown=7 a.txt /x", `x 0644 7:7 "a"`},
		{"owner beyond 65535", "COPY --chown=70000:80000 a.txt /x", `x 0644 70000:80000 "a"`},
		{"mode", "COPY --chmod=4711 a.txt /x", `x 4711 0:0 "a"`},
		{"mode of what is in a directory", "COPY --chmod=u=rwX,go= d/sub /n/", `n 0755 0:0 dir|n/two 0600 0:0 "2"`},
		{"linked", "COPY --link a.txt /n/x", `n 0755 0:0 dir|n/x 0644 0:0 "a"`},
		{"with parents", "COPY --parents d/sub/two d/o* /n/", `n 0755 0:0 dir|n/d 0755 0:0 dir|n/d/one 0600 0:0 "1"|n/d/sub 0750 0:0 dir|n/d/sub/two 0644 0:0 "2"`},
		{"with parents from a point on", "COPY --parents d/./sub/two /n/", `n 0755 0:0 dir|n/sub 0750 0:0 dir|n/sub/two 0644 0:0 "2"`},
		{"with parents from a point below a pattern on", "COPY --parents d/s?b/./**/two /n/", `n 0755 0:0 dir|n/two 0644 0:0 "2"`},
		{"with parents from the first of two points on", "COPY --parents d/./sub/./two none*/./x /n/", `n 0755 0:0 dir|n/sub 0750 0:0 dir|n/sub/two 0644 0:0 "2"`},
		{"with parents, of nothing", "COPY --parents none* /n/\nCOPY --parents d/./none* /m\nCOPY --parents --exclude=d d/one /l", `l 0755 0:0 dir|m 0755 0:0 dir|n 0755 0:0 dir`},
		{"without some", "COPY --exclude=sub --exclude=*link* d /n", `n 0755 0:0 dir|n/one 0600 0:0 "1"|n/same 0600 0:0 "1" = n/one`},
		{"a heredoc", "ARG X=y\nCOPY <<one <<\"two\" /n/\n$X 'q'\none\n$X\ntwo", `n 0755 0:0 dir|n/one 0644 0:0 "y 'q'\n"|n/two 0644 0:0 "$X\n"`},
		{"from a stage", "COPY --from=other --chown=web /n/x /y", `y 0644 33:34 "a"`},
		{"from a stage, whose owners stay", "COPY --from=other /n /m", `m 0755 0:0 dir|m/x 0644 9:9 "a"`},
		{"from a stage by its number", "COPY --from=0 /n/x /", `x 0644 9:9 "a"`},
		{"from an image", "COPY --from=base /etc/passwd /p", `p 0644 0:0 "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n"`},
		{"variables", "ARG A=a\nENV E=.txt\nCOPY $A${E} /${NO:-n}", `n 0644 0:0 "a"`},
		{"an archive", "ADD f.tar.gz /n", `n 0755 0:0 dir|n/t 0711 5:6 dir|n/t/f 4755 7:8 "of t/f"|n/t/h 4755 7:8 "of t/f" = n/t/f`},
		{"an archive, owned", "ADD --chown=web f.tar.gz /n/", `n 0755 33:34 dir|n/t 0711 33:34 dir|n/t/f 4755 33:34 "of t/f"|n/t/h 4755 33:34 "of t/f" = n/t/f`},
		{"what only begins like an archive", "ADD not.tar /x", `x 0644 0:0 "BZh not an archive"`},
		{"COPY does not unpack", "COPY evil.tar /x", ""},
		{"ONBUILD in a stage", "FROM base\nCOPY a.txt /x", `onbuild 0644 0:0 "a"|x 0644 0:0 "a"`},
		{"the last of a name", "COPY a.txt /x\nCOPY b.sh /x", `x 0755 0:0 "b"`},
		{"nothing matters twice", "COPY d/one /etc/passwd", `etc/passwd 0600 0:0 "1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "FROM scratch AS other\nCOPY --chown=9 a.txt /n/x\nRUN never, as the stage is not needed as it is\n"
			if strings.Contains(tt.text, "from=other") || strings.Contains(tt.text, "from=0") {
				text = "FROM scratch AS other\nCOPY --chown=9 a.txt /n/x\n"
			}
			if strings.HasPrefix(tt.text, "FROM") {
				text += tt.text
			} else {
				text += "FROM empty\n" + tt.text
			}
			if _, err := b.build(t, "made", text, func(o *Options) {
				o.Contexts = map[string]Context{"empty": {Reference: "plain"}}
			}); err != nil {
				t.Fatalf("%v\n%s", err, &b.log)
			}
			var got []string
			had := map[string]bool{}
			for _, line := range baseHas {
				had[line] = true
			}
			for _, line := range b.list(t, "made") {
				if !had[line] {
					got = append(got, line)
				}
			}
			if tt.want == "" {
				return
			}
			if diff := cmp.Diff(strings.Split(tt.want, "|"), got); diff != "" {
				t.Errorf("beside the base there is (-want +got):\n%s", diff)
			}
		})
		if t.Failed() && testing.Short() {
			break
		}
	}
}
