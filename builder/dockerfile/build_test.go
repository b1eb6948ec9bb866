package dockerfile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/uncompress"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// These tests build what needs no VM: with a real store, real layers and a real
// root file system, under a kernel that nothing boots. RUN is tested in VMs, by
// cmd/lumina.
type bench struct {
	home, context string
	log           bytes.Buffer
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{home: t.TempDir(), context: t.TempDir()}
	b.write(t, "a.txt", "a", 0o644)
	b.write(t, "b.sh", "b", 0o755)
	b.write(t, "d/one", "1", 0o600)
	b.write(t, "d/sub/two", "2", 0o644)
	b.write(t, "node_modules/x", "x", 0o644)
	if err := errors.Join(os.Symlink("one", filepath.Join(b.context, "d/link")), os.Symlink("d", filepath.Join(b.context, "dirlink")),
		os.Symlink("/etc/passwd", filepath.Join(b.context, "out")), os.Chmod(filepath.Join(b.context, "d/sub"), 0o750),
		os.Link(filepath.Join(b.context, "d/one"), filepath.Join(b.context, "d/same"))); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	full := filepath.Join(b.context, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), mode), os.Chmod(full, mode)); err != nil {
		t.Fatal(err)
	}
}

// build builds an image of a name.
func (b *bench) build(t testing.TB, name, text string, change ...func(*Options)) (*image.Image, error) {
	t.Helper()
	b.log.Reset()
	file, err := Parse(strings.NewReader(text), "Dockerfile")
	if err != nil {
		return nil, err
	}
	context, err := files.OpenHost(b.context, []string{"node_modules"})
	if err != nil {
		t.Fatal(err)
	}
	defer context.Close()
	o := Options{File: file, Context: context, Dial: new(net.Dialer).DialContext, Log: NewLog(&b.log), Args: map[string]string{}}
	for _, c := range change {
		c(&o)
	}
	if err := Check(o, "amd64"); err != nil {
		return nil, err
	}
	return builder.Create(t.Context(), b.options(name, Maker(o)))
}

func (b *bench) options(name string, m builder.Maker) builder.Options {
	return builder.Options{
		Name: name, Architecture: "amd64", Make: m, Replace: true,
		Store: image.NewStore(filepath.Join(b.home, "images")), CacheDir: filepath.Join(b.home, "cache"),
		Kernel: func(string) (builder.Kernel, error) {
			head := make([]byte, 64)
			copy(head, "\x7fELF")
			head[18] = 62
			return builder.Kernel{Version: "test", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }}, nil
		},
		Initramfs: func(string) ([]byte, error) { return []byte("070701"), nil },
	}
}

// list describes all that an image has.
func (b *bench) list(t testing.TB, name string) (lines []string) {
	t.Helper()
	root, err := files.OpenImage(filepath.Join(b.home, "images", name, image.Rootfs))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	first := map[files.ID]string{}
	if err := files.Walk(root, ".", func(name string, i files.Info) error {
		if name == "." {
			return nil
		}
		line := fmt.Sprintf("%s %04o %d:%d", name, i.Mode&0o7777, i.UID, i.GID)
		switch i.Type() {
		case files.TypeDir:
			line += " dir"
		case files.TypeSymlink:
			line = fmt.Sprintf("%s -> %s", name, i.Target)
		default:
			r, err := root.Open(name)
			if err != nil {
				return err
			}
			defer r.Close()
			content, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", content)
			if f := first[i.ID]; i.ID != (files.ID{}) && f != "" {
				line += " = " + f
			} else {
				first[i.ID] = name
			}
		}
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

// base is an image like a distribution's, as far as COPY minds.
const base = `FROM scratch
COPY --chmod=644 <<EOF /etc/passwd
root:x:0:0:root:/root:/bin/sh
web:x:33:34:web:/var/www:/bin/sh
EOF
COPY --chmod=644 <<EOF /etc/group
root:x:0:
www:x:77:
EOF
COPY a.txt /usr/bin/
ADD links.tar /
ENV PATH=/usr/bin HOME=/h
ONBUILD COPY a.txt /onbuild
LABEL a=1
CMD ["a"]
`

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

// What cannot be built says why, with its line, and leaves nothing.
func TestRefused(t *testing.T) {
	b := newBench(t)
	b.write(t, "evil.tar", archive(t, false, tar.Header{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644}), 0o644)
	for _, tt := range []struct{ text, want string }{
		{"", "Dockerfile: file with no instructions"},
		{"RUN x", "Dockerfile:1: it has no FROM"},
		{"FROM scratch\nCOPY f /\x00f", "Dockerfile:2: it has a NUL byte"},
		{"FROM scratch\nRUNN x", "Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)"},
		{"# syntax=other/frontend:1\nFROM scratch", `Dockerfile:1: syntax "other/frontend:1": Lumina reads`},
		{"FROM $NONE", "Dockerfile:1: FROM $NONE: after its variables are replaced nothing is left"},
		{"FROM --platform=windows/amd64 x", "Dockerfile:1: FROM --platform=windows/amd64: want linux/amd64 or linux/arm64"},
		{"FROM --platform=linux/arm64 scratch", "Dockerfile:1: the stage is made for linux/arm64, and linux/amd64 was asked for"},
		{"FROM scratch\nCOPY none /", `Dockerfile:2: "none" not found`},
		{"FROM scratch\nCOPY node_modules/x /", `Dockerfile:2: "node_modules/x" not found: the ignore file excludes it`},
		{"FROM scratch\n\nCOPY out /", `Dockerfile:3: "out" not found`},
		{"FROM scratch\nCOPY ../../etc/passwd /", `Dockerfile:2: "../../etc/passwd" not found`},
		{"FROM scratch\nCOPY a.txt b.sh /x", "Dockerfile:2: several sources go into a directory: end the destination \"/x\" with a slash"},
		{"FROM scratch\nCOPY a.txt /x\nCOPY a.txt /x/y", "Dockerfile:3: /x: there is something else than a directory"},
		{"FROM scratch\nCOPY a.txt /x/sub\nCOPY d /x", "Dockerfile:3: /x/sub is a directory in the source, but not in the image"},
		{"FROM scratch\nCOPY --chown=who a.txt /x", `Dockerfile:2: "who" is not in the image's /etc/passwd`},
		{"FROM scratch\nCOPY --chmod=9 a.txt /x", "Dockerfile:2: --chmod=9: want an octal number"},
		{"FROM scratch\nCOPY --from=$X a.txt /x", "Dockerfile:2: from=$X: variables are not expanded here"},
		{"FROM scratch\nCOPY --from=3 a.txt /x", "Dockerfile:2: from=3: there is no such stage before this one"},
		{"FROM scratch\nCOPY --from=late a.txt /x\nFROM scratch AS late\nFROM scratch\nCOPY --from=0 /x /", "Dockerfile:2: from=late: that stage is not before this one"},
		{"FROM scratch\nCOPY https://x.test/y /", "Dockerfile:2: COPY https://x.test/y: a URL can only be fetched by ADD"},
		{"FROM scratch\nADD git@x.test:y /", "Dockerfile:2: ADD git@x.test:y: a git repository cannot be added"},
		{"FROM scratch\nADD https://x.test/y.git#v1 /", "a git repository cannot be added"},
		{"FROM oci:/x:latest", "FROM oci:/x:latest: a Dockerfile cannot name images outside of registries and this host's store; write FROM NAME, and --build-context NAME=oci:/x:latest"},
		{"ARG A=mmdebstrap:bookworm\nFROM $A", "FROM mmdebstrap:bookworm: a Dockerfile cannot name images outside"},
		{"FROM scratch\nCOPY --from=docker-archive:/etc/shadow / /", "docker-archive:/etc/shadow: a Dockerfile cannot name images outside"},
		{"FROM scratch\nRUN --mount=from=oci-archive:/etc/shadow,target=/x y", "oci-archive:/etc/shadow: a Dockerfile cannot name images outside"},
		{"FROM scratch\nADD --checksum=sha256:00 a.txt /", "Dockerfile:2: ADD --checksum is for one source, a URL"},
		{"FROM scratch\nADD evil.tar /", `entry "../evil" leads out of the destination`},
		{"FROM scratch\nRUN --mount=type=ssh x", "Dockerfile:2: RUN --mount=type=ssh: there is no SSH agent"},
		{"FROM scratch\nRUN --mount=type=cache,target=/x,from=y x", "Dockerfile:2: --mount at /x: a cache begins empty"},
		{"FROM scratch\nRUN --mount=type=cache,target=/x,source=y x", "Dockerfile:2: --mount at /x: a cache begins empty"},
		{"FROM scratch\nRUN --network=host x", "Dockerfile:2: RUN --network=host: a VM does not have the host's network"},
		{"FROM scratch\nRUN --security=insecure x", "Dockerfile:2: RUN --security=insecure:"},
		{"FROM scratch\nRUN --device=x y", "Dockerfile:2: RUN --device:"},
		{"FROM scratch\nEXPOSE 99999", `Dockerfile:2: EXPOSE "99999": want PORT`},
		{"FROM scratch\nHEALTHCHECK --start-interval=1s CMD x", "Dockerfile:2: HEALTHCHECK --start-interval"},
		{"FROM scratch\nSTOPSIGNAL BLA", `Dockerfile:2: STOPSIGNAL "BLA": want a signal's name or number`},
		{"FROM scratch\nSTOPSIGNAL SIGRTMIN+16", `STOPSIGNAL "SIGRTMIN+16"`},
		{"FROM scratch\nSTOPSIGNAL 0", `STOPSIGNAL "0"`},
		{"FROM scratch\nCOPY ['a.txt', '/x/']", `a list is JSON, with double quotes and commas: ["SRC", "DST"]`},
		{"FROM scratch\nVOLUME \"$NONE\"", "Dockerfile:2: VOLUME: a path is empty"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			_, err := b.build(t, "made", tt.text, func(o *Options) {
				o.Start = func(context.Context, Start) (VM, error) { return nil, errors.New("a VM was started") }
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(b.home, "images", "*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// The configuration is what the instructions say.
func TestConfiguration(t *testing.T) {
	b := newBench(t)
	b.write(t, "links.tar", archive(t, false), 0o644)
	if _, err := b.build(t, "base", base); err != nil {
		t.Fatal(err)
	}
	const text = `# check=skip=all;error=true
# escape=` + "`" + `
ARG VERSION=1
ARG WITH=${VERSION}.2
FROM base AS x
ARG VERSION
ARG WITH
ARG TARGETARCH
ARG OVER=default
ENV V=$VERSION W=${WITH:+yes} ARCH=$TARGETARCH OVER=$OVER LONG=a` + "` `\n" + `b
LABEL a=2 "b c"='$VERSION' d="$VERSION"
MAINTAINER somebody
EXPOSE 80 1000-1002/UDP $VERSION
VOLUME ["/v w", "/x"]
USER web:www
STOPSIGNAL SIGQUIT
SHELL ["/bin/bash", "-c"]
HEALTHCHECK --interval=5s --retries=3 CMD curl x
ENTRYPOINT exec $HOME
ONBUILD RUN make
`
	img, err := b.build(t, "made", text, func(o *Options) { o.Args = map[string]string{"OVER": "given"} })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		"env": img.Config.Env, "labels": img.Config.Labels, "ports": img.Config.ExposedPorts, "user": img.Config.User,
		"entrypoint": img.Config.Entrypoint, "cmd": img.Config.Cmd, "signal": img.Config.StopSignal, "workdir": img.Config.WorkingDir,
	}
	want := map[string]any{
		"env":    []string{"PATH=/usr/bin", "HOME=/h", "V=1", "W=yes", "ARCH=amd64", "OVER=given", "LONG=a b"},
		"labels": map[string]string{"a": "2", "b c": "$VERSION", "d": "1"}, "ports": []string{"1/tcp", "1000/udp", "1001/udp", "1002/udp", "80/tcp"},
		"user": "web:www", "entrypoint": []string{"/bin/bash", "-c", "exec $HOME"}, "cmd": []string(nil), "signal": "SIGQUIT", "workdir": "/",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the configuration (-want +got):\n%s", diff)
	}
	for _, part := range []string{`"Volumes":{"/v w":{},"/x":{}}`, `"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":3}`,
		`"OnBuild":["RUN make"]`, `"Shell":["/bin/bash","-c"]`, `"author":"somebody"`} {
		if !strings.Contains(string(img.Container.Config), part) {
			t.Errorf("the container's configuration has no %s: %s", part, img.Container.Config)
		}
	}
	layers := 0
	for _, h := range img.History {
		if !h.EmptyLayer {
			layers++
		}
	}
	if layers != len(img.Layers) {
		t.Errorf("the history has %d layers, the image %d", layers, len(img.Layers))
	}
	if log := b.log.String(); strings.Contains(log, "warning") {
		t.Error(log)
	}
	// What ARG gave a stage, those that are made from it have, and no others.
	img, err = b.build(t, "made", "ARG OUT=1\nFROM base AS x\nARG OUT\nARG IN=2\nFROM x AS y\nENV A=$OUT$IN\nFROM y\nARG IN=3\nENV B=$OUT$IN")
	if want := []string{"PATH=/usr/bin", "HOME=/h", "A=12", "B=13"}; err != nil || !cmp.Equal(want, img.Config.Env) {
		t.Errorf("the environment is %q, %v, want %q", img.Config.Env, err, want)
	}
	img, err = b.build(t, "made", "ARG OUT=1\nFROM base AS x\nARG OUT\nFROM base\nENV A=${OUT:-none}\nCOPY --from=x /etc/passwd /p")
	if want := []string{"PATH=/usr/bin", "HOME=/h", "A=none"}; err != nil || !cmp.Equal(want, img.Config.Env) {
		t.Errorf("the environment is %q, %v, want %q", img.Config.Env, err, want)
	}
	if _, err := b.build(t, "made", "FROM base", func(o *Options) { o.Args = map[string]string{"NONE": "1", "http_proxy": "x"} }); err != nil || !strings.Contains(b.log.String(), "--build-arg NONE\n") {
		t.Errorf("an argument that nothing takes: %v, %s", err, &b.log)
	}
}

// A step is done again when what it reads is another, and no sooner.
func TestCache(t *testing.T) {
	b := newBench(t)
	const text = "FROM scratch AS one\nCOPY a.txt /a\nCOPY --link b.sh /b\nFROM scratch\nCOPY --from=one / /"
	cached := func(noCache bool) int {
		t.Helper()
		file, err := Parse(strings.NewReader(text), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		context, err := files.OpenHost(b.context, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer context.Close()
		b.log.Reset()
		o := b.options("made", Maker(Options{File: file, Context: context, Dial: new(net.Dialer).DialContext, Log: NewLog(&b.log)}))
		o.NoCache = noCache
		if _, err := builder.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return strings.Count(b.log.String(), "CACHED")
	}
	now := func(want int, why string) {
		t.Helper()
		if got := cached(false); got != want {
			t.Errorf("%s: %d steps were taken from the cache, want %d\n%s", why, got, want, &b.log)
		}
	}
	now(0, "at first")
	root := func() string {
		content, err := os.ReadFile(filepath.Join(b.home, "images/made", image.Rootfs))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(content))
	}
	first := root()
	now(3, "nothing changed")
	if root() != first {
		t.Error("the same build gave another root")
	}
	b.write(t, "a.txt", "a", 0o644) // at another time
	b.write(t, "other", "x", 0o644)
	now(3, "what is not copied changed")
	b.write(t, "a.txt", "A", 0o644)
	now(1, "a file changed, under a step that is linked")
	b.write(t, "a.txt", "A", 0o600)
	now(1, "a mode changed")
	b.write(t, "a.txt", "a", 0o644)
	now(3, "a file is as before")
	if got := cached(true); got != 0 {
		t.Errorf("--no-cache: %d steps were taken from the cache", got)
	}
}

func TestAddOfAURL(t *testing.T) {
	b := newBench(t)
	tarball := archive(t, true, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dir/file.tgz":
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			_, _ = io.WriteString(w, tarball)
		case "/":
			_, _ = io.WriteString(w, "root")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	sum := sha256.Sum256([]byte(tarball))
	for _, tt := range []struct{ add, want string }{
		{"ADD URL/dir/file.tgz?x=1 /n/", fmt.Sprintf("n 0755 0:0 dir|n/file.tgz 0600 0:0 %q", tarball)},
		{"ADD --unpack URL/dir/file.tgz /n/", `n 0755 0:0 dir|n/f 0644 0:0 "of f"`},
		{"ADD --checksum=sha256:" + hex.EncodeToString(sum[:]) + " --chmod=755 URL/dir/file.tgz /x", fmt.Sprintf("x 0755 0:0 %q", tarball)},
		{"ADD URL /x", `x 0600 0:0 "root"`},
		{"ADD --checksum=sha256:" + strings.Repeat("0", 64) + " URL/dir/file.tgz /x", "! it has checksum sha256:" + hex.EncodeToString(sum[:])},
		{"ADD URL/none /x", "! the server answered 404 Not Found"},
	} {
		_, err := b.build(t, "made", "FROM scratch\n"+strings.ReplaceAll(tt.add, "URL", server.URL))
		if want, bad := strings.CutPrefix(tt.want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %s", tt.add, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.add, err)
			continue
		}
		if diff := cmp.Diff(tt.want, strings.Join(b.list(t, "made"), "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.add, diff)
		}
	}
}

// ADD connects to where the build may, also where a server redirects to, and through
// nobody else.
func TestAddConnectsWhereItMay(t *testing.T) {
	var asked atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "secret")
	}))
	defer inside.Close()
	outside := httptest.NewServer(http.RedirectHandler(inside.URL+"/internal", http.StatusFound))
	defer outside.Close()
	t.Setenv("http_proxy", inside.URL)
	refused := errors.New("not there")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != outside.Listener.Addr().String() {
			return nil, refused
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	for _, from := range []string{inside.URL, outside.URL, "http://x.test/y"} {
		b := newBench(t)
		if _, err := b.build(t, "made", "FROM scratch\nADD "+from+" /x", func(o *Options) { o.Dial = dial }); !errors.Is(err, refused) {
			t.Errorf("ADD %s: %v", from, err)
		}
		if _, err := b.build(t, "made", "FROM scratch\nADD "+from+" /x", func(o *Options) { o.Dial = nil }); err == nil {
			t.Errorf("ADD %s, where nothing is fetched: no error", from)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server inside was asked %d times", n)
	}
}

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

// FuzzParse reads any bytes: what is no Dockerfile is refused, nothing ends the
// program.
func FuzzParse(f *testing.F) {
	for _, s := range []string{base, "FROM a\nRUN <<E\nx\nE", "# escape=`\nFROM a\nRUN --mount=type=cache,target=/x y", "ARG A=${B:-c}\nFROM $A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		file, err := Parse(strings.NewReader(s), "Dockerfile")
		if err != nil {
			return
		}
		_ = Check(Options{File: file, Log: NewLog(io.Discard)}, "amd64")
	})
}

// countingVM counts the commands that were run; none changes anything.
type countingVM struct{ ran *int }

func (countingVM) Unpack(context.Context, *protocol.Unpack, io.Reader) error { return nil }
func (countingVM) NextLayer(context.Context, *protocol.Layer) error          { return nil }
func (v countingVM) Run(context.Context, Command) (int, error)               { *v.ran++; return 0, nil }
func (countingVM) Changes(_ context.Context, w io.Writer) error              { return tar.NewWriter(w).Close() }
func (countingVM) Finish(context.Context) error                              { return nil }

// What RUN made is taken again, but not from a VM of another kernel or agent, which
// may have given something else.
func TestRunCacheKnowsItsVM(t *testing.T) {
	b := newBench(t)
	ran := 0
	build := func(initramfs string, text ...string) {
		t.Helper()
		file, err := Parse(strings.NewReader("FROM scratch"+append(text, "\nRUN [\"/x\"]")[0]+"\n"), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		o := b.options("made", Maker(Options{File: file, Log: NewLog(io.Discard),
			Start: func(context.Context, Start) (VM, error) { return countingVM{&ran}, nil }}))
		o.Initramfs = func(string) ([]byte, error) { return []byte(initramfs), nil }
		if _, err := builder.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for n, step := range []struct {
		initramfs string
		want      int
	}{{"070701", 1}, {"070701", 1}, {"070701 of another agent", 2}, {"070701", 2}} {
		if build(step.initramfs); ran != step.want {
			t.Fatalf("build %d: %d commands were run, want %d", n+1, ran, step.want)
		}
	}
	// What another one left in its VM counts, whatever it says that it has changed: the
	// layers of /a and /b are the same.
	const last = "FROM one\nRUN [\"/last\"]"
	for n, step := range []struct {
		first string
		want  int
	}{{`RUN ["/a"]`, 4}, {`RUN ["/b"]`, 6}, {`RUN ["/b"]`, 6}, {`RUN ["/a"]`, 6}} {
		if build("070701", " AS one\n"+step.first+"\n"+last); ran != step.want {
			t.Fatalf("build %d of two: %d commands were run, want %d", n+1, ran, step.want)
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
