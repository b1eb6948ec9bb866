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
