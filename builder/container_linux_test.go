package builder

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// fullConfig has every field that is known, and some that nobody knows yet.
const fullConfig = `{
  "architecture": "x86_64", "variant": "v1", "os": "linux", "os.version": "6.1", "os.features": ["x"],
  "created": "2020-01-02T03:04:05.123456789Z", "author": "A <a@example.com>", "container": "c0ffee", "docker_version": "1.2.3",
  "container_config": {"Hostname": "h", "Cmd": ["#(nop)"]}, "moby.buildkit.buildinfo.v1": "eA==", "future": {"n": 12345678901234567890, "f": 1.50},
  "config": {
    "AttachStdin": false, "Hostname": "host", "Domainname": "d", "Tty": true, "MacAddress": "02:00:00:00:00:01", "NetworkDisabled": true, "StdinOnce": true,
    "Env": ["PATH=/bin", "A=<&>"], "User": "1000:1000", "WorkingDir": "/w", "Entrypoint": ["/e"], "Cmd": ["c"], "Image": "sha256:00",
    "Labels": {"l": "1"}, "StopSignal": "SIGUSR1", "StopTimeout": 7, "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/v": {}}, "Shell": ["/bin/ash", "-c"],
    "OnBuild": ["RUN x"], "ArgsEscaped": true, "Memory": 5,
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5000000000, "StartInterval": 1, "Future": [1]}
  },
  "history": [{"created": "2020-01-02T03:04:05Z", "created_by": "a", "author": "me", "future": 1}, {"created_by": "b", "comment": "c", "empty_layer": true}]
}`

// configLayout is a layout of an image of this configuration, which has one layer
// and annotations.
func configLayout(t *testing.T, config string, l []byte) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(config), &fields); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	blob := func(b []byte, more string) string {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		path := filepath.Join(dir, "blobs/sha256", sum)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{%s"digest":"sha256:%s","size":%d}`, more, sum, len(b))
	}
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(l))
	withRoot := config[:len(config)-1] + `, "rootfs": {"type": "layers", "diff_ids": ["` + diffID + `"], "future": true}}`
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"org.example.a":"b"},"config":%s,"layers":[%s]}`,
		blob([]byte(withRoot), `"mediaType":"application/vnd.oci.image.config.v1+json",`),
		blob(gzipped(l), `"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","annotations":{"org.example.layer":"l"},`))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, blob([]byte(manifest), `"mediaType":"application/vnd.oci.image.manifest.v1+json",`))
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pushed is the configuration and manifest that a registry has of an image after
// it was pushed.
func pushed(t *testing.T, o Options, ref string) (config, manifest map[string]any) {
	t.Helper()
	if _, err := Push(t.Context(), PushOptions{Name: o.Name, Reference: ref, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
		t.Fatal(err)
	}
	for what, to := range map[string]*map[string]any{"--config": &config, "--raw": &manifest} {
		out := buildertest.Run(t, "skopeo", "inspect", "--tls-verify=false", "--raw", what, "docker://"+ref)
		if err := json.Unmarshal([]byte(out), to); err != nil {
			t.Fatal(err)
		}
	}
	return config, manifest
}

// What is pushed has all that was pulled, and what a step changed.
func TestConfigIsKept(t *testing.T) {
	registry := buildertest.Registry(t)
	base := layer(t, dir(".", 0o755), file("a", "content"))
	var want map[string]any
	if err := json.Unmarshal([]byte(fullConfig), &want); err != nil {
		t.Fatal(err)
	}
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(base))
	want["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{diffID}, "future": true}

	pulled := registry + "/config:0"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", "oci:"+configLayout(t, fullConfig, base), "docker://"+pulled)
	o := options(t, pulled)
	create(t, o)
	config, manifest := pushed(t, o, registry+"/config:1")
	if diff := cmp.Diff(want, config); diff != "" {
		t.Errorf("the configuration changed (-pulled +pushed):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"org.example.a": "b"}, manifest["annotations"]); diff != "" {
		t.Errorf("the annotations changed:\n%s", diff)
	}
	if l := manifest["layers"].([]any)[0].(map[string]any); l["annotations"] == nil {
		t.Errorf("the layer is now %v", l)
	}

	// A step and a recipe's words on top, and once more on top of that, from the
	// store and from the registry.
	o.Name, o.Reference = "changed", "test"
	o.Steps = []string{"make b"}
	o.RunStep = func(_ context.Context, _ Step, w io.Writer) error {
		_, err := w.Write(layer(t, file("b", "new")))
		return err
	}
	o.Apply(&recipe.Recipe{Base: "test", Run: []string{}, Env: map[string]string{"B": "2"}, User: "root"})
	create(t, o)
	config, _ = pushed(t, o, registry+"/config:2")
	inner := want["config"].(map[string]any)
	inner["Env"], inner["User"] = []any{"PATH=/bin", "A=<&>", "B=2"}, "root"
	history := config["history"].([]any)
	if len(history) != 3 || cmp.Diff(history[:2], want["history"]) != "" {
		t.Errorf("the history is %v", history)
	}
	if config["created"] == want["created"] {
		t.Error("the image was changed and is as old as before")
	}
	if ids := config["rootfs"].(map[string]any)["diff_ids"].([]any); len(ids) != 2 || ids[0] != diffID {
		t.Errorf("the layers are %v", ids)
	}
	for _, field := range []string{"created", "history", "rootfs"} {
		delete(config, field)
		delete(want, field)
	}
	if diff := cmp.Diff(want, config); diff != "" {
		t.Errorf("the configuration changed otherwise (-want +pushed):\n%s", diff)
	}
	again := options(t, registry+"/config:2")
	create(t, again)
	third, _ := pushed(t, again, registry+"/config:3")
	if got := third["history"].([]any); len(got) != 3 {
		t.Errorf("the history is %v, pulled and pushed again", got)
	}
}

// Histories that do not go with their layers get what makes them, when something
// is added to them.
func TestHistoryGoesWithLayers(t *testing.T) {
	for _, tt := range []struct {
		name, history string
		want          int // entries that are not empty, before the new one
	}{{"none", `[]`, 1}, {"null", `null`, 1}, {"too many", `[{"created_by":"a"},{"created_by":"b"},{"created_by":"c"}]`, 1}, {"empty ones only", `[{"empty_layer":true}]`, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			raw := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + fmt.Sprintf("%x", sha256.Sum256(nil)) + `"]},"history":` + tt.history + `}`)
			img := &image.Image{Architecture: "amd64"}
			var c v1.ConfigFile
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			if err := describeContainer(img, raw, &c, nil); err != nil {
				t.Fatal(err)
			}
			img.Layers = make([]image.Layer, 2)
			img.History = append(img.History, image.History{CreatedBy: "new"})
			got, err := configFile(img)
			if err != nil {
				t.Fatal(err)
			}
			layers := 0
			for _, h := range got.History {
				if !h.EmptyLayer {
					layers++
				}
			}
			if last := got.History[len(got.History)-1]; layers != tt.want+1 || last.CreatedBy != "new" {
				t.Errorf("the history is %+v", got.History)
			}
		})
	}
}

// FuzzOverConfig changes any configuration: what is not known stays, and what
// comes of it can be read.
func FuzzOverConfig(f *testing.F) {
	f.Add([]byte(fullConfig))
	f.Add([]byte(`{"config":null,"history":[null]}`))
	f.Add([]byte(`{"Config":{"env":["a"]},"config":{"Env":["b"]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c v1.ConfigFile
		if json.Unmarshal(raw, &c) != nil {
			return
		}
		img := &image.Image{Architecture: "amd64"}
		if describeContainer(img, raw, &c, nil) != nil {
			return
		}
		img.Config.User, img.Config.Env = "fuzzed", append(img.Config.Env, "A=b")
		changed, err := containerConfig(img)
		if err != nil {
			return
		}
		var got v1.ConfigFile
		if err := json.Unmarshal(changed, &got); err != nil || got.Config.User != "fuzzed" || len(got.Config.Env) != len(img.Config.Env) {
			t.Errorf("%s became %s: %v", raw, changed, err)
		}
	})
}
