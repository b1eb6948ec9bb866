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
	if r := lumina(t, "images", "save", "saved", "oci-archive:"+dir+"/none/x.tar"); r.code != 125 || !strings.Contains(r.stderr, "saving to ") {
		t.Errorf("into no directory: exit code %d, %s", r.code, r.stderr)
	}
}
