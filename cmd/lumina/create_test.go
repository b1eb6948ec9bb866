package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// Steps in VMs become layers, which every container tool can read.
func TestCreateWithSteps(t *testing.T) {
	t.Cleanup(func() {
		lumina(t, "images", "remove", "stepped", "again", "same").succeeded(t)
		nothingLeft(t)
	})
	const first = `set -e
		echo one > /made; mkdir -p /srv/deep/er; ln /made /srv/hard; ln -s ../made /srv/soft; mkfifo /srv/pipe; mknod /srv/null c 1 3
		chown 65534:70000 /made; chmod 4755 /made; touch -d 2001-02-03T04:05:06Z /srv/old /usr/local/lib; chown 0:7 /; chmod 751 /
		rm /etc/debian_version; rm -r /usr/share/doc/apt; mkdir /usr/share/doc/apt; touch /usr/share/doc/apt/new
		sleep 1000 & hostname > /etc/hostname`
	create := []string{"images", "create", "stepped", "--from", "debian", "--no-verify", "--replace", "--network", "none", "--run", first, "--run", "cat /made; chmod 700 /srv; rm /srv/old"}
	r := lumina(t, create...).succeeded(t)
	if !strings.Contains(r.stderr, "step 1 of 2") || !strings.Contains(r.stderr, "step 2 of 2: cat /made") || !strings.Contains(r.stderr, "\none\n") {
		t.Errorf("stderr: %s", r.stderr)
	}
	check := func(name string) {
		t.Helper()
		r := lumina(t, "run", "--image", name, `stat -c '%u %g %a %h %n' /made /srv; stat -c '%F %t %T' /srv/null /srv/pipe; readlink /srv/soft; ls /usr/share/doc/apt
			ls /etc/debian_version /srv/old 2>&1 | grep -c 'No such'; ls /srv; cat /etc/machine-id | wc -c; date -u -r /usr/local/lib +%s; stat -c '%a %u %g' /`).succeeded(t)
		want := "65534 70000 4755 2 /made\n0 0 700 3 /srv\ncharacter special file 1 3\nfifo 0 0\n../made\nnew\n2\ndeep\nhard\nnull\npipe\nsoft\n33\n981173106\n751 0 7\n"
		if r.Stdout != want {
			t.Errorf("%s has %q, want %q", name, r.Stdout, want)
		}
	}
	check("stepped")

	t.Run("what is known is not done again", func(t *testing.T) {
		if r := lumina(t, create...).succeeded(t); strings.Contains(r.stderr, "step") {
			t.Errorf("stderr: %s", r.stderr)
		}
		other := append([]string{}, create...)
		other[len(other)-1] = "chmod 750 /srv"
		if r := lumina(t, other...).succeeded(t); strings.Contains(r.stderr, "step 1") || !strings.Contains(r.stderr, "step 2") {
			t.Errorf("another second step: %s", r.stderr)
		}
		if r := lumina(t, append(create, "--no-cache")...).succeeded(t); !strings.Contains(r.stderr, "step 1") {
			t.Errorf("--no-cache: %s", r.stderr)
		}
	})
	t.Run("a step that fails", func(t *testing.T) {
		before := lumina(t, "images", "inspect", "stepped").succeeded(t).stdout
		if r := lumina(t, "images", "create", "stepped", "--from", "debian"); r.code != 125 || !strings.Contains(r.stderr, `image "stepped" already exists; --replace replaces it`) {
			t.Errorf("without --replace: exit code %d, %s", r.code, r.stderr)
		}
		r := lumina(t, "images", "create", "stepped", "--from", "debian", "--replace", "--run", "true", "--run", "echo it is broken >&2; exit 7")
		if r.code != 125 || !strings.Contains(r.stderr, "step 2 of 2 (echo it is broken >&2; exit 7): the command ended with exit code 7; its last output:\nit is broken") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
		if after := lumina(t, "images", "inspect", "stepped").succeeded(t).stdout; after != before {
			t.Error("the image is another")
		}
		nothingLeft(t)
	})
	t.Run("pushed, it is anybody's container image", func(t *testing.T) {
		registry := buildertest.Registry(t)
		ref := registry + "/team/stepped:v1"
		lumina(t, "images", "push", "stepped", ref).succeeded(t)
		var config struct {
			Architecture string
			History      []struct {
				CreatedBy string `json:"created_by"`
			}
		}
		out := buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--config", "docker://"+ref)
		if err := json.Unmarshal([]byte(out), &config); err != nil || config.Architecture != "amd64" || !strings.HasSuffix(config.History[len(config.History)-1].CreatedBy, "rm /srv/old") {
			t.Errorf("skopeo: %s, %v", out, err)
		}
		layout := filepath.Join(t.TempDir(), "layout")
		buildertest.Run(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+ref, "oci:"+layout+":v1")
		// A layer has the directories above what changed, and nothing that did not.
		var manifest struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal([]byte(buildertest.Run(t, "skopeo", "inspect", "--raw", "oci:"+layout+":v1")), &manifest); err != nil {
			t.Fatal(err)
		}
		for n, want := range []string{"./ etc/ etc/.wh.debian_version made srv/ srv/deep/ srv/deep/er/ srv/hard srv/null srv/old srv/pipe srv/soft usr/ usr/local/ usr/local/lib/ " +
			"usr/share/ usr/share/doc/ usr/share/doc/apt/ usr/share/doc/apt/.wh..wh..opq usr/share/doc/apt/new", "srv/ srv/.wh.old"} {
			blob := filepath.Join(layout, "blobs", strings.Replace(manifest.Layers[len(manifest.Layers)-2+n].Digest, ":", "/", 1))
			if got := strings.Join(strings.Fields(buildertest.Run(t, "tar", "-tf", blob)), " "); got != want {
				t.Errorf("layer of step %d: %q, want %q", n+1, got, want)
			}
		}
		bundle := filepath.Join(t.TempDir(), "bundle")
		buildertest.Run(t, "umoci", "unpack", "--image", layout+":v1", bundle)
		if b, err := os.ReadFile(filepath.Join(bundle, "rootfs/srv/hard")); string(b) != "one\n" {
			t.Errorf("umoci unpacked %q, %v", b, err)
		}
		if _, err := os.Lstat(filepath.Join(bundle, "rootfs/etc/debian_version")); !os.IsNotExist(err) {
			t.Errorf("what the step removed is there: %v", err)
		}
		lumina(t, "images", "pull", ref, "again", "--no-verify").succeeded(t)
		check("again")
	})
	t.Run("pushed as it is, it is the same elsewhere", func(t *testing.T) {
		ref := buildertest.Registry(t) + "/team/stepped:as-is"
		lumina(t, "images", "push", "stepped", ref, "--as-is").succeeded(t)
		lumina(t, "images", "pull", ref, "same", "--no-verify").succeeded(t)
		if a, b := lumina(t, "images", "inspect", "stepped").stdout, lumina(t, "images", "inspect", "same").stdout; strings.ReplaceAll(b, `"same"`, `"stepped"`) != a {
			t.Errorf("it was %s\nand is %s", a, b)
		}
		check("same")
	})
}

func TestRecipe(t *testing.T) {
	recipe := filepath.Join(t.TempDir(), "r.yaml")
	const text = `base: debian
description: A recipe of a test
files:
  - {path: /usr/local/bin/hello, content: "#!/bin/sh\necho hello $WHO\n", mode: "0755"}
  - {path: /opt/link, link: ../usr/local/bin/hello}
env: {WHO: world, PATH: /usr/local/bin:/usr/bin:/bin}
workdir: /opt
user: "65534:65534"
run: [echo built > /opt/built]
disk_size: 3GB
tests:
  - {command: hello; pwd; id -u, stdout: '^hello world\n/opt\n65534\n$'}
  - {command: exit 3, exit: 3}
`
	write(t, recipe, text)
	t.Cleanup(func() {
		lumina(t, "images", "remove", "made").succeeded(t)
		nothingLeft(t)
	})
	write(t, recipe, strings.Replace(text, "user: \"65534:65534\"\n", "", 1))
	r := lumina(t, "images", "create", "made", "--recipe", recipe)
	if r.code != 125 || !strings.Contains(r.stderr, `: the image fails a test: test 1 of 2 (hello; pwd; id -u): it printed "hello world\n/opt\n0\n", want a match of`) {
		t.Errorf("a test that fails: exit code %d, %s", r.code, r.stderr)
	}
	if r := lumina(t, "images", "inspect", "made"); r.code == 0 {
		t.Error("an image whose test failed is installed")
	}
	// The step is root's, whatever the image's user.
	write(t, recipe, text)
	lumina(t, "images", "create", "made", "--recipe", recipe).succeeded(t)
	if r := lumina(t, "run", "--image", "made", "/opt/link; cat built; df -BG --output=size / | tail -1").succeeded(t); strings.Join(strings.Fields(r.Stdout), " ") != "hello world built 3G" {
		t.Errorf("stdout = %q", r.Stdout)
	}
	// A kernel of its own that cannot be had says whose it is.
	write(t, recipe, text+"kernel: {fragment: CONFIG_BLK_DEV_NBD=y}\n")
	noSource := with(command("images", "create", "made", "--replace", "--recipe", recipe), "LUMINA_KERNEL_SOURCE=/nowhere/linux.tar.xz")
	if r := finish(t, noSource); r.code != 125 || !strings.Contains(r.stderr, `r.yaml: building a kernel: no kernel source "/nowhere/linux.tar.xz": install `) {
		t.Errorf("no source: exit code %d, %s", r.code, r.stderr)
	}
	if r := lumina(t, "images", "create", "made", "--recipe", recipe, "--kernel", recipe); r.code != 2 || !strings.Contains(r.stderr, "--kernel and the recipe's kernel exclude each other") {
		t.Errorf("two kernels: exit code %d, %s", r.code, r.stderr)
	}
	write(t, recipe, text+"packages_: [x]\n")
	if r := lumina(t, "images", "create", "made", "--recipe", recipe); r.code != 2 || !strings.Contains(r.stderr, `r.yaml:14: packages_: there is no such field; "packages" may be meant`) {
		t.Errorf("an unknown field: exit code %d, %s", r.code, r.stderr)
	}
}
