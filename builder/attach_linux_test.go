package builder

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/oci"
)

// referrers are what a registry without an API for it has in the tag that the OCI
// distribution specification falls back to.
func referrers(t *testing.T, registry, name, digest string) []v1.Descriptor {
	t.Helper()
	var index v1.IndexManifest
	out := buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+registry+"/"+name+":"+strings.Replace(digest, ":", "-", 1))
	if err := json.Unmarshal([]byte(out), &index); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	slices.SortFunc(index.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(a.ArtifactType, b.ArtifactType) })
	return index.Manifests
}

// Documents about an image are beside it, say what they are, and are signed; a copy
// has them, too, and other tools read all of it.
func TestAttachAndCopy(t *testing.T) {
	registry, other := buildertest.Registry(t), buildertest.Registry(t)
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	create(t, o)
	key, public, _ := keyPair(t)
	ref := registry + "/team/app:1"
	var told string
	digest, err := Push(t.Context(), PushOptions{Name: o.Name, Reference: ref, Store: o.Store, CacheDir: o.CacheDir, Sign: key,
		Annotations: map[string]string{"org.opencontainers.image.version": "1.2"},
		Attach: func(digest string) ([]oci.Attachment, error) {
			told = digest
			return []oci.Attachment{{Type: "application/spdx+json", Body: []byte(`{"a":1}`)}, {Type: "application/vnd.in-toto+json", Body: []byte(`{"b":2}`)}}, nil
		}})
	if err != nil || told != digest {
		t.Fatalf("Push() = %s, %v; the documents are about %s", digest, err, told)
	}
	check := func(registry string) {
		t.Helper()
		found := referrers(t, registry, "team/app", digest)
		if len(found) != 2 || found[0].ArtifactType != "application/spdx+json" || found[1].ArtifactType != "application/vnd.in-toto+json" {
			t.Fatalf("what refers to it is %+v", found)
		}
		for _, d := range append(found, v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(digest, "sha256:")}}) {
			if got, err := oci.Verify(t.Context(), registry+"/team/app@"+d.Digest.String(), public); err != nil || got != d.Digest.String() {
				t.Errorf("the signature of %s: %v", d.Digest, err)
			}
		}
		var m v1.Manifest
		out := buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+registry+"/team/app@"+found[0].Digest.String())
		if err := json.Unmarshal([]byte(out), &m); err != nil || m.Subject == nil || m.Subject.Digest.String() != digest || m.Config.MediaType != "application/vnd.oci.empty.v1+json" || len(m.Layers) != 1 {
			t.Errorf("a document's manifest: %v, %s", err, out)
		}
	}
	check(registry)

	var m v1.Manifest
	if err := json.Unmarshal([]byte(buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+ref)), &m); err != nil {
		t.Fatal(err)
	}
	if m.Annotations["org.opencontainers.image.version"] != "1.2" {
		t.Errorf("the annotations are %v", m.Annotations)
	}

	// Registry to registry, registry to layout, and back.
	if got, err := oci.Copy(t.Context(), ref, other+"/team/app:2", oci.CopyOptions{}); err != nil || got != digest {
		t.Fatalf("Copy() = %s, %v", got, err)
	}
	check(other)
	layout := filepath.Join(t.TempDir(), "layout")
	for range 2 { // in the place of what is there
		if got, err := oci.Copy(t.Context(), ref, "oci:"+layout+":x", oci.CopyOptions{}); err != nil || got != digest {
			t.Fatalf("Copy() to a layout = %s, %v", got, err)
		}
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	buildertest.Run(t, "umoci", "unpack", "--image", layout+":x", bundle)
	if b, err := os.ReadFile(filepath.Join(bundle, "rootfs/a")); string(b) != "content" {
		t.Errorf("umoci unpacks %q, %v", b, err)
	}
	if got, err := oci.Copy(t.Context(), "oci:"+layout+":x", other+"/back:1", oci.CopyOptions{}); err != nil || got != digest {
		t.Errorf("Copy() from a layout = %s, %v", got, err)
	}
	buildertest.Run(t, "buildah", "pull", "--quiet", "--tls-verify=false", "docker://"+other+"/back:1")
	buildertest.Run(t, "buildah", "rmi", other+"/back:1")
	for from, want := range map[string]string{registry + "/team/none:1": "not found in the registry", "oci:" + layout + ":none": "0 images", "docker-archive:x": "images load"} {
		if _, err := oci.Copy(t.Context(), from, other+"/x:1", oci.CopyOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Copy(%q) = %v, want %q", from, err, want)
		}
	}
}

// An artifact says what it is, also to registries that list by that.
func TestArtifactType(t *testing.T) {
	registry := buildertest.Registry(t)
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	create(t, o)
	if _, err := PushArtifact(t.Context(), PushOptions{Name: o.Name, Reference: registry + "/as-is:1", Store: o.Store, CacheDir: o.CacheDir}); err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal([]byte(buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+registry+"/as-is:1")), &m); err != nil {
		t.Fatal(err)
	}
	if m.ArtifactType != artifactType || m.Annotations["org.opencontainers.image.created"] == "" {
		t.Errorf("the manifest says %q and %v", m.ArtifactType, m.Annotations)
	}
}

// What KubeVirt wants: a file below /disk, which its user reads, and nothing else.
func TestContainerDisk(t *testing.T) {
	registry := buildertest.Registry(t)
	disk := filepath.Join(t.TempDir(), "d")
	if err := os.WriteFile(disk, []byte("a disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := registry + "/vm:1"
	if _, err := PushContainerDisk(t.Context(), PushOptions{Reference: ref, CacheDir: t.TempDir()}, disk, "amd64", time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "docker-archive:"+filepath.Join(dir, "a.tar")+":vm:1")
	out := buildertest.Run(t, "sh", "-ec", "cd "+dir+"; tar -xf a.tar; for l in *.tar; do [ $l = a.tar ] || tar --numeric-owner -tvf $l; done; skopeo inspect --config docker-archive:a.tar")
	for _, want := range []string{"dr-xr-xr-x 107/107", " disk/\n", "-r--r----- 107/107", " disk/disk.qcow2\n", `"architecture": "amd64"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
