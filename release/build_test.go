package release_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/catalog"
)

func TestReleaseIsReproducible(t *testing.T) {
	w := newWorld(t)
	var all [2]map[string]string
	for i := range all {
		all[i] = map[string]string{}
		for _, f := range w.build(t, "v1") {
			b, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			all[i][f.Name] = string(b)
		}
	}
	if diff := cmp.Diff(all[0], all[1]); diff != "" {
		t.Errorf("(-first +second)\n%s", diff)
	}
}

// What a release holds beside images is what other programs understand.
func TestReleaseFiles(t *testing.T) {
	w := newWorld(t)
	files := w.build(t, "v1")
	dir := filepath.Dir(files[0].Path)
	if out, err := exec.Command("sh", "-c", "cd \"$1\" && sha256sum --strict -c SHA256SUMS", "sh", dir).CombinedOutput(); err != nil || bytes.Count(out, []byte("OK")) != 8 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	t.Run("tar", func(t *testing.T) {
		buildertest.Needs(t, "zstd")
		if out, err := exec.Command("sh", "-c", "cd \"$1\" && cat default-amd64.tar.zst.* | zstd -dc | tar tv", "sh", dir).CombinedOutput(); err != nil || bytes.Count(out, []byte("\n")) != 4 {
			t.Errorf("tar: %v\n%s", err, out)
		}
	})
	if last := files[len(files)-1].Name; last != catalog.Name {
		t.Errorf("the last file is %s: who sees the catalog would not find what it names", last)
	}
	read := func(name string, v any) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if bytes.Contains(b, []byte("/home/me")) {
			t.Errorf("%s tells where the image was made: %s", name, b)
		}
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var sbom struct {
		SPDXVersion string
		Packages    []struct {
			Name         string
			VersionInfo  string
			ExternalRefs []struct{ ReferenceLocator string }
		}
		Files         []struct{ FileName string }
		Relationships []struct{ RelationshipType string }
	}
	read("default-amd64.spdx.json", &sbom)
	var packages []string
	for _, p := range sbom.Packages {
		line := p.Name + " " + p.VersionInfo
		for _, r := range p.ExternalRefs {
			line += " " + r.ReferenceLocator
		}
		packages = append(packages, line)
	}
	want := []string{
		"default v1", "linux 6.12.1-test", "lumina-initramfs ",
		"base-files 12.4+deb12u5 pkg:deb/debian/base-files@12.4%2Bdeb12u5?arch=amd64",
		"libstdc++6 1:12.2.0-14~x pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14~x?arch=amd64",
	}
	if diff := cmp.Diff(want, packages); diff != "" || sbom.SPDXVersion != "SPDX-2.3" || len(sbom.Files) != 0 || len(sbom.Relationships) != 5 {
		t.Errorf("%+v (-want +got)\n%s", sbom, diff)
	}
	sbom.Files = nil
	read("default-arm64.spdx.json", &sbom) // no dpkg: its files
	if len(sbom.Files) != 2 || sbom.Files[0].FileName != "./bin/sh" || sbom.Files[1].FileName != "./etc/passwd" {
		t.Errorf("%+v", sbom.Files)
	}
	var statement struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct {
			Name   string
			Digest map[string]string
		}
		Predicate struct {
			BuildDefinition struct {
				ResolvedDependencies []struct{ Digest map[string]string }
			}
		}
	}
	read("default-amd64.provenance.json", &statement)
	var c catalog.Catalog
	read(catalog.Name, &c)
	if statement.Type != "https://in-toto.io/Statement/v1" || statement.PredicateType != "https://slsa.dev/provenance/v1" ||
		statement.Subject[0].Name != c.Images[0].Parts[0].Name || statement.Subject[0].Digest["sha256"] != c.Images[0].Parts[0].SHA256 ||
		len(statement.Predicate.BuildDefinition.ResolvedDependencies) != 2 {
		t.Errorf("%+v", statement)
	}
}

func TestBuildRefused(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "catalog.json")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	mine := release.Source{Image: "mine", Name: "mine"}
	tests := []struct {
		name   string
		change func(o *release.BuildOptions)
		want   string
	}{
		{"a tag", func(o *release.BuildOptions) { o.Tag = "v 1" }, `tag "v 1"`},
		{"no such image", func(o *release.BuildOptions) { o.Images = []release.Source{{Image: "none", Name: "none"}} }, "no such image"},
		{"an image twice", func(o *release.BuildOptions) { o.Images = append(o.Images, mine) }, "both be published as mine-amd64"},
		{"a file named as the catalog", func(o *release.BuildOptions) { o.Files = []string{file} }, "would be named catalog.json"},
		{"a file that is not there", func(o *release.BuildOptions) { o.Files = []string{file + "x"} }, "no such file"},
		{"a part size", func(o *release.BuildOptions) { o.PartSize = 2 << 30 }, "part size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := release.BuildOptions{Store: w.publisher, Images: []release.Source{mine}, Tag: "v1", Dir: t.TempDir(), Key: w.key}
			tt.change(&o)
			if _, err := release.Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
