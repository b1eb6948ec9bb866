package dockerfile

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/uncompress"
)

// Neither what is copied nor what is fetched takes more of the disk than it may.
func TestBuildMaxSize(t *testing.T) {
	b := newBench(t)
	b.write(t, "big", strings.Repeat("x", 3<<20), 0o644)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 3<<20)))
	}))
	defer server.Close()
	for _, text := range []string{"COPY big /", "ADD " + server.URL + "/x /"} {
		file, err := Parse(strings.NewReader("FROM scratch\n"+text), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		context, err := files.OpenHost(b.context, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer context.Close()
		o := b.options("made", Maker(Options{File: file, Context: context, Dial: new(net.Dialer).DialContext, Log: NewLog(io.Discard)}))
		o.MaxSize = 2 << 20
		if _, err := builder.Create(t.Context(), o); !errors.Is(err, builder.ErrTooLarge) {
			t.Errorf("%s: error %v, want ErrTooLarge", text, err)
		}
	}
}

// A layer has the directories above what it brings, as they are: tools that unpack each
// layer by itself make them otherwise root's, mode 0755, and so in the image.
func TestLayersHaveParents(t *testing.T) {
	b := newBench(t)
	b.write(t, "base.tar", archive(t, false,
		tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		tar.Header{Name: "home/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "home/web/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 33, Gid: 34},
		tar.Header{Name: "link", Linkname: "home/web", Typeflag: tar.TypeSymlink}), 0o644)
	for _, tt := range []struct{ text, want string }{
		{"COPY a.txt /tmp/a", "tmp/ 1777 0:0|tmp/a 0644 0:0"},
		{"COPY --chown=5 a.txt b.sh /home/web/n/", "home/ 0755 0:0|home/web/ 0700 33:34|home/web/n/ 0755 5:5|home/web/n/a.txt 0644 5:5|home/web/n/b.sh 0755 5:5"},
		{"ADD base.tar /link/", "home/ 0755 0:0|home/web/tmp/ 1777 0:0|home/web/home/ 0755 0:0|home/web/home/web/ 0700 33:34|home/web/link 0000 0:0"},
		{"WORKDIR /home/web/w", "home/ 0755 0:0|home/web/ 0700 33:34|home/web/w/ 0755 0:0"},
		{"COPY --link a.txt /home/web/a", "home/ 0755 0:0|home/web/ 0755 0:0|home/web/a 0644 0:0"},
	} {
		img, err := b.build(t, "made", "FROM scratch\nADD base.tar /\n"+tt.text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", tt.text, err, &b.log)
		}
		blob, err := os.Open(filepath.Join(b.home, "cache/blobs", strings.Replace(img.Layers[len(img.Layers)-1].Digest, ":", "/", 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		r, err := uncompress.Reader(blob)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got []string
		for layer := tar.NewReader(r); ; {
			h, err := layer.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %04o %d:%d", h.Name, h.Mode, h.Uid, h.Gid))
		}
		if diff := cmp.Diff(strings.Split(tt.want, "|"), got); diff != "" {
			t.Errorf("%s: its layer has (-want +got):\n%s", tt.text, diff)
		}
	}
}
