package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// What is saved is read by other tools, and loaded it is the same.
func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { lumina(t, "images", "remove", "saved", "loaded", "second") })
	context := dockerContext(t)
	build(t, "FROM scratch\nCOPY --chown=70000 busybox /bin/\nCOPY passwd /etc/\nHEALTHCHECK CMD x\nLABEL a=b\n", "saved", context).succeeded(t)
	build(t, "FROM scratch\nCOPY group /etc/\n", "second", context).succeeded(t)
	want := everyFile(t, "saved")
	digests := map[string]bool{}
	for _, to := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/oci.tar:v1", "oci-archive:" + dir + "/none.tar", "docker-archive:" + dir + "/docker.tar:team/saved:v1"} {
		r := lumina(t, "images", "save", "saved", to).succeeded(t)
		var saved struct{ Digest string }
		if err := json.Unmarshal([]byte(r.stdout), &saved); err != nil {
			t.Fatal(err)
		}
		digests[saved.Digest] = true
		var seen struct {
			Digest string
			Labels map[string]string
			Layers []string
		}
		if err := json.Unmarshal([]byte(buildertest.Run(t, "skopeo", "inspect", to)), &seen); err != nil || seen.Labels["a"] != "b" || len(seen.Layers) != 2 {
			t.Errorf("%s: skopeo sees %+v, %v", to, seen, err)
		}
		if strings.HasPrefix(to, "oci") && seen.Digest != saved.Digest {
			t.Errorf("%s: skopeo has digest %s, images save said %s", to, seen.Digest, saved.Digest)
		}
		lumina(t, "images", "load", "loaded", to, "--replace", "--no-verify").succeeded(t)
		if diff := cmp.Diff(want, everyFile(t, "loaded")); diff != "" {
			t.Errorf("%s: the files (-saved +loaded):\n%s", to, diff)
		}
		if r := lumina(t, "images", "inspect", "loaded"); !strings.Contains(r.stdout, `"Healthcheck":{`) {
			t.Errorf("%s: the configuration is %s", to, r.stdout)
		}
	}
	if len(digests) != 1 {
		t.Errorf("the same image has digests %v", digests)
	}
	// A layout has several; an archive is the same each time.
	lumina(t, "images", "save", "second", "oci:"+dir+"/layout:v2").succeeded(t)
	lumina(t, "images", "save", "saved", "oci:"+dir+"/layout:v1").succeeded(t)
	buildertest.Run(t, "umoci", "unpack", "--rootless", "--image", dir+"/layout:v2", dir+"/bundle")
	if tags := buildertest.Run(t, "umoci", "list", "--layout", dir+"/layout"); tags != "v1\nv2\n" && tags != "v2\nv1\n" {
		t.Errorf("the layout's tags are %q", tags)
	}
	first, err := os.ReadFile(dir + "/oci.tar")
	if err != nil {
		t.Fatal(err)
	}
	lumina(t, "images", "save", "saved", "oci-archive:"+dir+"/oci.tar:v1").succeeded(t)
	if again, err := os.ReadFile(dir + "/oci.tar"); err != nil || string(again) != string(first) {
		t.Errorf("saved again, the archive is another: %v", err)
	}
	for _, to := range []string{"app.tar", "oci:", "docker-archive:x:A B", "registry.test/x"} {
		if r := lumina(t, "images", "save", "saved", to); r.code != 2 {
			t.Errorf("%s: exit code %d, %s", to, r.code, r.stderr)
		}
	}
	if r := lumina(t, "images", "save", "saved", "oci-archive:/dev/null/none/x.tar"); r.code != 125 || !strings.Contains(r.stderr, "saving to ") {
		t.Errorf("into no directory: exit code %d, %s", r.code, r.stderr)
	}
}

// Images of two platforms are one reference.
func TestPushOfSeveralPlatforms(t *testing.T) {
	context := dockerContext(t)
	t.Cleanup(func() { lumina(t, "images", "remove", "for-amd64", "for-arm64", "pulled") })
	// Nothing is booted: what begins like a kernel is enough.
	kernels := map[string]string{"amd64": "\x7fELF" + strings.Repeat("\x00", 14) + "\x3e" + strings.Repeat("\x00", 45), "arm64": strings.Repeat("\x00", 56) + "ARM\x64" + strings.Repeat("\x00", 4)}
	for arch, kernel := range kernels {
		write(t, context+"/"+arch, kernel)
		build(t, "FROM scratch\nARG TARGETARCH\nCOPY <<EOF /arch\n$TARGETARCH\nEOF\n", "for-"+arch, context, "--platform", "linux/"+arch, "--kernel", context+"/"+arch).succeeded(t)
	}
	ref := buildertest.Registry(t) + "/team/both:v1"
	lumina(t, "images", "push", "for-amd64", "for-arm64", ref).succeeded(t)
	for _, arch := range []string{"amd64", "arm64"} {
		lumina(t, "images", "create", "pulled", "--from", ref, "--platform", "linux/"+arch, "--kernel", context+"/"+arch, "--replace", "--no-verify").succeeded(t)
		if got := everyFile(t, "pulled"); len(got) != 2 || !strings.Contains(got[1], arch) {
			t.Errorf("for %s there is %q", arch, got)
		}
	}
	var index struct {
		Manifests []struct {
			Platform struct{ OS, Architecture string }
		}
	}
	if err := json.Unmarshal([]byte(buildertest.Run(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+ref)), &index); err != nil || len(index.Manifests) != 2 || index.Manifests[1].Platform.Architecture != "arm64" || index.Manifests[1].Platform.OS != "linux" {
		t.Errorf("skopeo: %+v, %v", index, err)
	}
	if r := lumina(t, "images", "push", "for-amd64", "for-amd64", ref); r.code != 125 || !strings.Contains(r.stderr, "two images are for linux/amd64") {
		t.Errorf("the same twice: exit code %d, %s", r.code, r.stderr)
	}
}
