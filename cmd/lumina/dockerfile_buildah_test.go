package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
)

// conformance is built by buildah and by Lumina, and has to give the same files
// and the same configuration.
const conformance = `ARG VERSION=1
` + system + `FROM system AS tools
WORKDIR /src
COPY tree/ ./tree/
RUN echo built > out && rm -r tree/sub && chmod 700 tree && ln out out2
FROM system
ARG VERSION
ARG NAME=default
ENV A=1 B="two words" C=$VERSION D=${NAME}
LABEL x=1 "y z"='2'
COPY tree /tree
COPY --chown=33:34 tree/file /owned/
COPY --chmod=750 tree/file tree/sub/deep /mode/
COPY tree/f* tree/s?b /glob/
COPY --from=tools /src/out* /from/
COPY --from=tools --chown=7:8 /src/tree /from/tree
ADD archive.tar.gz /unpacked/
ADD tree/file /added
WORKDIR /work/dir
RUN echo run > run && touch /etc/x && rm /lower/two && rm -r /lower/dir && mkdir /lower/dir
USER 33:34
WORKDIR sub
RUN id -u > /tmp/id
USER root
EXPOSE 80 90/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD curl x
ONBUILD RUN true
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
`

// copies has the other kinds, for which no VM starts.
const copies = `ARG BASE=scratch
FROM ${BASE} AS one
MAINTAINER somebody <x@example.test>
ARG A
ARG B=b
ENV D=dir S=sub E=${B:-c}${A:+d} F=${A:-none}
ENV old style value
WORKDIR /w/$D
WORKDIR $S
COPY tree .
COPY tree/ other
COPY tree/*e* ${D}/
COPY a.txt tree/sub ./mixed/
LABEL "a b"="c d" e=f
LABEL g='h' \
  i="j k"
ENTRYPOINT exec x "a b"
CMD ["c1", "c2"]
STOPSIGNAL 9
ONBUILD COPY a.txt /on/
ONBUILD ENV Z=3
FROM one AS two
ENV D=9
LABEL e=9
ENTRYPOINT ["/f"]
STOPSIGNAL SIGTERM
COPY passwd group /etc/
USER web
WORKDIR /home/web
COPY --chown=web:more a.txt .
COPY --chown=web tree/sub ./s
HEALTHCHECK NONE
VOLUME ["/v1", "/v 2"]
VOLUME /v3 /v4
EXPOSE 53/udp 9/tcp
USER 12:34
WORKDIR /num/ber
FROM two
ADD tree.tar.xz /t/
ADD archive.tar.gz a.txt /mixed/
ADD tree /tree
ADD not.tar.gz /n/
COPY archive.tar.gz /c/
COPY tree/link tree/dirlink /l2/
COPY tree/dirlink /l3
COPY empty /empty/
COPY --from=0 /w /w
COPY --from=one /w/dir/sub/file /renamed
CMD []
`

func TestDockerfileAsBuildah(t *testing.T) {
	context := dockerContext(t)
	for name, content := range map[string]string{"tree/file": "1", "tree/sub/deep": "2", "tree/sub/script": "#!/bin/sh\n", "packed/p/q": "3", "not.tar.gz": "no"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(context, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(context, name), content)
	}
	buildertest.Run(t, "sh", "-ec", `cd "$0"; mkdir empty; chmod 750 tree/sub; chmod 4755 tree/sub/script; ln -s file tree/link; ln -s sub tree/dirlink; ln tree/file tree/same
		tar czf archive.tar.gz --owner=5 --group=6 -C packed p; tar cJf tree.tar.xz --owner=7 --group=8 tree/file tree/link; rm -r packed`, context)
	for name, text := range map[string]string{"commands": conformance, "copies": copies} {
		t.Run(name, func(t *testing.T) { asBuildah(t, text, context) })
	}
}

func asBuildah(t *testing.T, dockerfile, context string) {
	file := filepath.Join(t.TempDir(), "Dockerfile")
	write(t, file, dockerfile)
	t.Cleanup(func() { lumina(t, "images", "remove", "ours", "theirs") })
	lumina(t, "images", "create", "ours", "--no-verify", "-f", file, context).succeeded(t)

	store := t.TempDir()
	buildah := []string{"--root", store + "/root", "--runroot", store + "/run", "--storage-driver", "vfs"}
	buildertest.Run(t, "buildah", append(buildah, "bud", "--isolation", "chroot", "--format", "docker", "--quiet", "-t", "theirs", "-f", file, context)...)
	buildertest.Run(t, "buildah", append(buildah, "push", "--quiet", "theirs", "docker-archive:"+store+"/theirs.tar:theirs:latest")...)
	lumina(t, "images", "create", "theirs", "--no-verify", "--from", "docker-archive:"+store+"/theirs.tar").succeeded(t)

	// buildah leaves the mount points of its own chroot behind, and takes set-user-ID
	// bits off what it copies, which BuildKit does not.
	chroot := []string{"dev ", "proc ", "sys ", "run ", "etc/hostname ", "etc/hosts ", "etc/resolv.conf "}
	theirs := slices.DeleteFunc(everyFile(t, "theirs"), func(line string) bool {
		return slices.ContainsFunc(chroot, func(name string) bool { return strings.HasPrefix(line, name) })
	})
	for i, line := range theirs {
		theirs[i] = strings.Replace(line, "/script 100755 ", "/script 104755 ", 1)
	}
	if diff := cmp.Diff(theirs, everyFile(t, "ours")); diff != "" {
		t.Errorf("the files (-buildah +lumina):\n%s", diff)
	}
	config := func(name string) string {
		t.Helper()
		// ArgsEscaped is BuildKit's; buildah names the container in Hostname, lists a
		// variable that is set again last, and has no working directory for /.
		out := lumina(t, "images", "inspect", name).succeeded(t).stdout
		cmd := exec.Command("jq", "-S", `.container.config.config | del(.Labels["io.buildah.version"], .Image, .ArgsEscaped, .Hostname) | with_entries(select([.value] | inside([false, "", [], {}]) | not)) | .Env |= sort | .WorkingDir //= "/"`)
		cmd.Stdin = strings.NewReader(out)
		b, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if diff := cmp.Diff(config("theirs"), config("ours")); diff != "" {
		t.Errorf("the configuration (-buildah +lumina):\n%s", diff)
	}
}

// everyFile describes every file of an image, but for times.
func everyFile(t testing.TB, name string) (lines []string) {
	t.Helper()
	root, err := files.OpenImage(filepath.Join(home, "images", name, "rootfs.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	first := map[files.ID]string{}
	if err := files.Walk(root, ".", func(name string, i files.Info) error {
		line := fmt.Sprintf("%s %o %d:%d %s %v", name, i.Mode, i.UID, i.GID, i.Target, i.Xattrs)
		if i.Type() == files.TypeRegular {
			r, err := root.Open(name)
			if err != nil {
				return err
			}
			defer r.Close()
			content, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.20q", len(content), content)
		}
		if i.ID != (files.ID{}) {
			if first[i.ID] == "" {
				first[i.ID] = name
			}
			line += " = " + first[i.ID]
		}
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}
