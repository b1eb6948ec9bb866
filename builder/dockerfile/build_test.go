package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
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
