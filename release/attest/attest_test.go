package attest

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/releasetest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func sbomOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	store := image.NewStore(filepath.Join(t.TempDir(), "images"))
	releasetest.Install(t, store, "test", "amd64", files)
	h, err := store.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	metadata, err := image.Digest(t.Context(), h.Path("image.json"))
	if err != nil {
		t.Fatal(err)
	}
	entry := &catalog.Image{ID: "test-amd64", Name: "test", Version: "v1", Files: map[string]image.File{"image.json": metadata}}
	b, err := SBOM(t.Context(), h, entry)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// SPDX's own library reads the documents and finds them sound.
func TestSBOMIsSPDX(t *testing.T) {
	distroless := map[string]string{
		"var/lib/dpkg/status.d/tzdata":         "Package: tzdata\nVersion: 2024a\nArchitecture: all\nMaintainer: A <a@b>\n",
		"var/lib/dpkg/status.d/tzdata.md5sums": "0 usr/share/zoneinfo\n",
		"var/lib/dpkg/status.d/base":           "Package: base-files\nVersion: 12\nArchitecture: amd64\n",
	}
	tests := []struct {
		name     string
		files    map[string]string
		packages []string
		listed   []string
	}{
		{"Debian", releasetest.Debian(), []string{"test", "linux", "lumina-initramfs", "base-files", "libstdc++6"}, nil},
		{"distroless", distroless, []string{"test", "linux", "lumina-initramfs", "base-files", "tzdata"}, nil},
		{"Alpine", map[string]string{"lib/apk/db/installed": "C:Q1=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nU:https://musl.libc.org/\no:musl\nF:lib\nR:ld.so\n\nP:busybox\nV:1.36.1-r29\nA:x86_64\n"},
			[]string{"test", "linux", "lumina-initramfs", "busybox", "musl"}, nil},
		{"no package database", map[string]string{"bin/a": "1", "b": "2"}, []string{"test", "linux", "lumina-initramfs"}, []string{"./b", "./bin/a"}},
		{"nothing installed", map[string]string{"var/lib/dpkg/status": "\n\n"}, []string{"test", "linux", "lumina-initramfs"}, []string{"./var/lib/dpkg/status"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := spdxjson.Read(bytes.NewReader(sbomOf(t, tt.files)))
			if err != nil {
				t.Fatal(err)
			}
			if err := spdxlib.ValidateDocument(doc); err != nil {
				t.Error(err)
			}
			var packages, listed []string
			for _, p := range doc.Packages {
				packages = append(packages, p.PackageName)
			}
			for _, f := range doc.Files {
				listed = append(listed, f.FileName)
			}
			if diff := cmp.Diff(tt.packages, packages); diff != "" {
				t.Errorf("packages (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.listed, listed); diff != "" {
				t.Errorf("files (-want +got)\n%s", diff)
			}
		})
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add(releasetest.Debian()["var/lib/dpkg/status"])
	f.Fuzz(func(t *testing.T, s string) {
		packages, err := readStatus(strings.NewReader(s))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages {
			d := debianPackage(p, "debian")
			if d.Name == "" || strings.ContainsAny(d.SPDXID, " \n/+_") || strings.ContainsAny(d.ExternalRefs[0].Locator, " \n\"<>") {
				t.Errorf("%+v", d)
			}
		}
	})
}
