package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/uncompress"

	"golang.org/x/sys/unix"
)

func sha(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// entry is a file of an archive, or a link.
func entry(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), PAXRecords: map[string]string{"content": content}}
}

func archiveOf(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		h.PAXRecords = nil
		_ = w.WriteHeader(&h)
		_, _ = io.WriteString(w, content)
	}
	w.Close()
	return b.Bytes()
}

// ociArchive is an archive of a layout with one layer.
func ociArchive(layer string, more ...tar.Header) []byte {
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}`, sha(layer))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:%s","size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%d}]}`,
		sha(config), len(config), sha(layer), len(layer))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d}]}`, sha(manifest), len(manifest))
	return archiveOf(append(more, entry("index.json", index), entry("blobs/sha256/"+sha(config), config), entry("blobs/sha256/"+sha(manifest), manifest), entry("blobs/sha256/"+sha(layer), layer))...)
}

// dockerArchive is one of docker save, whose layer has this name.
func dockerArchive(name string, more ...tar.Header) []byte {
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + sha("layer") + `"]}}`
	return archiveOf(append(more, entry("manifest.json", fmt.Sprintf(`[{"Config":"c.json","RepoTags":["debian:12"],"Layers":[%q]}]`, name)), entry("c.json", config))...)
}

// openBytes opens an archive of a kind.
func openBytes(t *testing.T, kind string, b []byte) (*Image, error) {
	t.Helper()
	return openTagged(t, kind, b, "")
}

// openTagged is openBytes with what follows the file's name.
func openTagged(t *testing.T, kind string, b []byte, tag string) (*Image, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := Open(context.Background(), kind+":"+file+tag, Options{Platform: amd64, CacheDir: filepath.Join(t.TempDir(), "cache")})
	if err == nil {
		t.Cleanup(func() { img.Close() })
	}
	return img, err
}

func TestArchives(t *testing.T) {
	link := func(name, target string, kind byte) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: kind}
	}
	zipped := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(b)
		w.Close()
		return z.Bytes()
	}
	with := func(program string, b []byte, args ...string) []byte {
		buildertest.Needs(t, program)
		cmd := exec.Command(program, append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(b)
		z, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		return z
	}
	tests := []struct {
		name, kind string
		archive    []byte
		want       string // part of the error; "" for none
	}{
		{"layout", "oci-archive", ociArchive("layer"), ""},
		{"compressed layout", "oci-archive", zipped(ociArchive("layer")), ""},
		{"layer of docker", "docker-archive", dockerArchive("l.tar", entry("l.tar", "layer")), ""},
		{"name with a dot", "docker-archive", dockerArchive("./l.tar", entry("./l.tar", "layer")), ""},
		{"layer that is a link", "docker-archive", dockerArchive("d/l.tar", link("d/l.tar", "../e/l.tar", tar.TypeSymlink), entry("e/l.tar", "layer")), ""},
		{"layer that is a hard link", "docker-archive", dockerArchive("d/l.tar", entry("e/l.tar", "layer"), link("d/l.tar", "e/l.tar", tar.TypeLink)), ""},
		// The archive is all there is: no name leads out of it.
		{"layer of the host", "docker-archive", dockerArchive("/etc/passwd"), "not found"},
		{"layer above", "docker-archive", dockerArchive("../../../../../../etc/passwd"), "not found"},
		{"link to the host", "docker-archive", dockerArchive("l.tar", link("l.tar", "/etc/passwd", tar.TypeSymlink)), "not found"},
		{"link to itself", "docker-archive", dockerArchive("l.tar", link("l.tar", "l.tar", tar.TypeSymlink)), "not found"},
		{"links in a circle", "docker-archive", dockerArchive("a", link("a", "b", tar.TypeSymlink), link("b", "a", tar.TypeSymlink)), "not found"},
		{"layer that is a directory", "docker-archive", dockerArchive("l", link("l", "", tar.TypeDir)), "not found"},
		{"layer with no name", "docker-archive", dockerArchive(""), "not found"},
		{"no manifest", "docker-archive", archiveOf(entry("x", "")), "not an archive of docker save"},
		{"the other kind", "docker-archive", archiveOf(entry("index.json", "{}")), "write oci-archive:"},
		{"the other kind of layout", "oci-archive", archiveOf(entry("manifest.json", "[]")), "docker-archive:FILE"},
		{"no image", "docker-archive", archiveOf(entry("manifest.json", "[]")), "holds no image"},
		{"manifest that is none", "docker-archive", archiveOf(entry("manifest.json", "{")), "manifest.json"},
		{"no configuration", "docker-archive", archiveOf(entry("manifest.json", `[{"Config":"c"}]`)), `configuration "c"`},
		{"no index", "oci-archive", archiveOf(entry("x", "")), "not an OCI layout"},
		{"index of nothing", "oci-archive", archiveOf(entry("index.json", "{}")), "holds no image"},
		{"index that is not JSON", "oci-archive", archiveOf(entry("index.json", "]")), "index.json"},
		{"index that is long", "oci-archive", archiveOf(entry("index.json", strings.Repeat(" ", maxManifest+1))), "longer than"},
		{"no blob", "oci-archive", archiveOf(entry("index.json", `{"manifests":[{"digest":"sha256:`+sha("")+`"}]}`)), "not found"},
		{"blob of another digest", "oci-archive", archiveOf(entry("index.json", `{"manifests":[{"digest":"sha256:`+sha("")+`"}]}`), entry("blobs/sha256/"+sha(""), "{}")), "has digest"},
		{"digest that is a path", "oci-archive", archiveOf(entry("index.json", `{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}`)), "invalid image"},
		{"digest of another kind", "oci-archive", archiveOf(entry("index.json", `{"manifests":[{"digest":"md5:`+sha("")+`"}]}`)), "invalid image"},
		{"archive that is none", "oci-archive", []byte(strings.Repeat("no archive", 1000)), "archive"},
		{"compressed archive that is cut off", "oci-archive", zipped(ociArchive("layer"))[:200], "unexpected EOF"},
		{"zstd", "docker-archive", with("zstd", dockerArchive("l.tar", entry("l.tar", "layer"))), ""},
		{"zstd layout", "oci-archive", with("zstd", ociArchive("layer")), ""},
		{"xz", "docker-archive", with("xz", dockerArchive("l.tar", entry("l.tar", "layer"))), ""},
		{"xz in blocks", "docker-archive", with("xz", dockerArchive("l.tar", entry("l.tar", "layer")), "--block-size=1KiB"), ""},
		{"bzip2", "docker-archive", with("bzip2", dockerArchive("l.tar", entry("l.tar", "layer"))), ""},
		{"lz4", "docker-archive", append([]byte("\x04\x22\x4d\x18"), dockerArchive("l.tar", entry("l.tar", "layer"))...), "compressed with lz4"},
		{"zstd of pzstd", "docker-archive", with("pzstd", dockerArchive("l.tar", entry("l.tar", "layer"))), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img, err := openBytes(t, tt.kind, tt.archive)
			var got []byte
			if err == nil {
				var r io.ReadCloser
				if r, err = img.Layers[0].Open(context.Background()); err == nil {
					defer r.Close()
					got, err = io.ReadAll(r)
				}
			}
			switch {
			case tt.want == "" && (err != nil || string(got) != "layer"):
				t.Errorf("the layer is %q, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Open() = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// One manifest each, of what the specification calls artifacts and attestations.
// A layout in which something is in the place of a file is refused, and not waited for.
func TestLayoutOfOddFiles(t *testing.T) {
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + sha("layer") + `"]}}`
	manifest := `{"schemaVersion":2,"config":{"digest":"sha256:` + sha(config) + `"},"layers":[{"digest":"sha256:` + sha("layer") + `","size":5}]}`
	content := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"manifests":[{"digest":"sha256:` + sha(manifest) + `"}]}`,
		"blobs/sha256/" + sha(config): config, "blobs/sha256/" + sha(manifest): manifest, "blobs/sha256/" + sha("layer"): "layer"}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name := range content {
		for kind, make := range map[string]func(path string) error{
			"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"directory": func(path string) error { return os.Mkdir(path, 0o700) },
			"link out":  func(path string) error { return os.Symlink(secret, path) },
		} {
			if name == "oci-layout" {
				continue // it is not read
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o700); err != nil {
					t.Fatal(err)
				}
				for file, text := range content {
					err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600)
					if file == name {
						err = errors.Join(err, os.Remove(filepath.Join(dir, file)), make(filepath.Join(dir, file)))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				img, err := Open(t.Context(), "oci:"+dir, Options{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, CacheDir: t.TempDir()})
				if err == nil {
					defer img.Close()
					_, err = img.Layers[0].Open(t.Context())
				}
				if err == nil {
					t.Error("it was opened")
				}
			})
		}
	}
}

func TestPick(t *testing.T) {
	arm := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	of := func(arch, variant string) *v1.Platform {
		return &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}
	}
	index := func(platforms ...*v1.Platform) *v1.IndexManifest {
		m := &v1.IndexManifest{}
		for n, p := range platforms {
			m.Manifests = append(m.Manifests, v1.Descriptor{Digest: v1.Hash{Hex: strconv.Itoa(n)}, Size: int64(n), Platform: p})
		}
		return m
	}
	tests := []struct {
		name  string
		index *v1.IndexManifest
		want  int64 // which; -1 for none
	}{
		{"first", index(&amd64, &arm), 0},
		{"second", index(&arm, &amd64), 1},
		{"none", index(&arm), -1},
		{"empty", index(), -1},
		{"the only one does not say", index(nil), 0},
		{"several do not say", index(nil, nil), -1},
		{"beside one that does not say", index(nil, &amd64), 1},
		{"beside an attestation", index(&v1.Platform{OS: "unknown", Architecture: "unknown"}, &amd64), 1},
		{"of another system", index(&v1.Platform{OS: "windows", Architecture: "amd64"}), -1},
		{"twice", index(&amd64, &amd64), 0},
		{"what every machine runs", index(of("amd64", "v4"), of("amd64", "v3"), of("amd64", "v1"), of("amd64", "v2")), 2},
		{"none that every machine runs", index(of("amd64", "v4"), of("amd64", "v2"), of("amd64", "v3")), 1},
		{"a variant that nobody knows", index(of("amd64", "x"), of("amd64", "v1")), 1},
		{"by another name", index(of("aarch64", ""), of("x86_64", "")), 1},
		{"in capitals", index(&v1.Platform{OS: "Linux", Architecture: "AMD64"}), 0},
		{"of no system", index(&v1.Platform{Architecture: "amd64"}), 0},
		{"of no architecture, alone", index(&v1.Platform{OS: "linux"}), 0},
		{"of no architecture, beside another", index(&v1.Platform{OS: "linux"}, of("amd64", "")), 1},
		{"32 bits", index(of("386", ""), of("arm", "v7")), -1},
	}
	same := index(nil, nil)
	same.Manifests[1].Digest = same.Manifests[0].Digest
	if d, err := pick(same, amd64); err != nil || d.Size != 0 {
		t.Errorf("the same one twice, which does not say: %v, %v", d, err)
	}
	for _, tt := range tests {
		d, err := pick(tt.index, amd64)
		if (err == nil) != (tt.want >= 0) || err == nil && d.Size != tt.want {
			t.Errorf("%s: pick() = number %d, %v, want %d", tt.name, d.Size, err, tt.want)
		}
	}
}

// Variants of what was asked for, and of arm64.
func TestPickVariants(t *testing.T) {
	tests := []struct {
		want string
		have []string
		pick int // -1: none
	}{
		{"linux/arm64", []string{"v9", "v8"}, 1},
		{"linux/arm64", []string{"v9", ""}, 1},
		{"linux/arm64", []string{"v9", "v8.2"}, 1},
		{"linux/arm64/v8", []string{""}, 0},
		{"linux/aarch64", []string{"v7"}, -1},
		{"linux/amd64/v3", []string{"", "v4", "v2"}, 2},
		{"linux/amd64/v3", []string{"", "v3", "v4"}, 1},
		{"linux/amd64/v2", []string{"v4", "v3"}, -1},
		{"x86_64", []string{"v2", "v1"}, 1},
	}
	for _, tt := range tests {
		p, err := ParsePlatform(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		m := &v1.IndexManifest{}
		for n, v := range tt.have {
			m.Manifests = append(m.Manifests, v1.Descriptor{Size: int64(n), Platform: &v1.Platform{OS: "linux", Architecture: p.Architecture, Variant: v}})
		}
		d, err := pick(m, p)
		if (err == nil) != (tt.pick >= 0) || err == nil && d.Size != int64(tt.pick) {
			t.Errorf("pick(%q) for %s = number %d, %v, want %d", tt.have, tt.want, d.Size, err, tt.pick)
		}
	}
	for s, want := range map[string]string{"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "amd64": "linux/amd64", "x86-64": "linux/amd64", "linux/aarch64": "linux/arm64",
		"linux/arm64/v8": "linux/arm64", "arm64": "linux/arm64", "Linux/ARM64/V8": "linux/arm64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v2": "linux/amd64/v2",
		"": "", "linux": "", "linux/": "", "windows/amd64": "", "linux/arm/v7": "", "linux/386": "", "linux/amd64/v8": "", "linux/amd64/": "", "linux/amd64/v2/x": "", "linux/arm64/v7": ""} {
		p, err := ParsePlatform(s)
		if got := p.String(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("ParsePlatform(%q) = %s, %v, want %q", s, got, err, want)
		}
	}
}

// FuzzArchive opens any bytes as an archive of either kind and reads all that
// it says it has.
func FuzzArchive(f *testing.F) {
	f.Add(ociArchive("layer"))
	f.Add(dockerArchive("d/l.tar", tar.Header{Name: "d/l.tar", Linkname: "../e", Typeflag: tar.TypeSymlink}, entry("e", "layer")))
	f.Add(archiveOf(entry("index.json", `{"manifests":[null,{"platform":null},{"mediaType":"application/vnd.oci.image.index.v1+json"}]}`)))
	f.Add(archiveOf(entry("manifest.json", `[null]`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if uncompress.Is(b[:min(len(b), 512)]) {
			t.Skip("a few bytes can be a disk full of zeros")
		}
		for _, kind := range []string{"oci-archive", "docker-archive"} {
			img, err := openBytes(t, kind, b)
			if err != nil {
				continue
			}
			for _, l := range img.Layers {
				if l.DiffID.Algorithm != "sha256" || len(l.DiffID.Hex) != 64 {
					t.Fatalf("layer named %q", l.DiffID)
				}
				if r, err := l.Open(context.Background()); err == nil {
					n, err := io.Copy(io.Discard, r)
					if err != nil || n > int64(len(b)) {
						t.Fatalf("a layer has %d bytes, %v; its archive has %d", n, err, len(b))
					}
					r.Close()
				}
			}
		}
	})
}

// FuzzLayout reads any three texts as the index, manifest and configuration of
// a layout. Digests are those of the texts, so that they are read.
func FuzzLayout(f *testing.F) {
	f.Add(`{"manifests":[{"digest":"MANIFEST","platform":{"os":"linux","architecture":"amd64"}}]}`,
		`{"config":{"digest":"CONFIG"},"layers":[{"digest":"CONFIG","mediaType":"application/vnd.oci.image.layer.v1.tar"}]}`,
		`{"architecture":"amd64","rootfs":{"diff_ids":["sha256:`+sha("")+`"]}}`)
	f.Add(`{"manifests":[{"digest":"MANIFEST","mediaType":"application/vnd.oci.image.index.v1+json"}]}`, `{"manifests":[{"digest":"CONFIG"}]}`, `{}`)
	f.Add(`{"manifests":[{"digest":"MANIFEST","annotations":{"org.opencontainers.image.ref.name":"x"}},null]}`, `null`, `null`)
	f.Fuzz(func(t *testing.T, index, manifest, config string) {
		manifest = strings.ReplaceAll(manifest, "CONFIG", "sha256:"+sha(config))
		index = strings.ReplaceAll(strings.ReplaceAll(index, "MANIFEST", "sha256:"+sha(manifest)), "CONFIG", "sha256:"+sha(config))
		img, err := openBytes(t, "oci-archive", archiveOf(entry("index.json", index), entry("blobs/sha256/"+sha(manifest), manifest), entry("blobs/sha256/"+sha(config), config)))
		if err != nil {
			return
		}
		if len(img.Layers) != len(img.Config.RootFS.DiffIDs) || img.Config.Architecture != amd64.Architecture {
			t.Fatalf("%d layers, %d of them named, for %s", len(img.Layers), len(img.Config.RootFS.DiffIDs), img.Config.Architecture)
		}
	})
}

// An archive that is a FIFO is refused, and not waited for.
func TestArchiveThatIsAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openArchive(t.Context(), path, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("openArchive() = %v", err)
	}
}

// The index of an archive does not grow with the names in it.
func TestArchiveNames(t *testing.T) {
	var many []tar.Header
	for n := range 40 {
		many = append(many, entry(fmt.Sprintf("%d/%s", n, strings.Repeat("a", 1<<19-16)), ""))
	}
	if _, err := openBytes(t, "docker-archive", dockerArchive("layer.tar", many...)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "names of more than 16777216 bytes") {
		t.Errorf("40 names of 512 KiB: %v", err)
	}
}

// A document of few bytes and very many parts would take a hundred times its size once
// it is parsed: it is refused before that, whatever it is.
func TestDocumentsOfManyParts(t *testing.T) {
	const many = 1 << 20
	list := func(part string) string { return "[" + strings.Repeat(part+",", many) + part + "]" }
	layers := func(n int) string { return `[{"Config":"c.json","Layers":[` + strings.Repeat(`"l",`, n-1) + `"l"]}]` }
	const config = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	for name, tt := range map[string]struct {
		kind string
		b    []byte
		want string
	}{
		"layers":         {"docker-archive", archiveOf(entry("manifest.json", layers(many)), entry("c.json", config)), "manifest.json has more than 131072 parts"},
		"images":         {"docker-archive", archiveOf(entry("manifest.json", list("{}"))), "manifest.json has more than 131072 parts"},
		"a layer more":   {"docker-archive", archiveOf(entry("manifest.json", layers(maxLayers+1)), entry("c.json", "not read")), "it has 513 layers"},
		"configuration":  {"docker-archive", archiveOf(entry("manifest.json", layers(1)), entry("c.json", `{"config":{"Env":`+list(`""`)+`}}`)), "c.json has more than 131072 parts"},
		"manifests":      {"oci-archive", archiveOf(entry("index.json", `{"schemaVersion":2,"manifests":`+list("null")+`}`)), "index.json has more than 131072 parts"},
		"manifests as {": {"oci-archive", archiveOf(entry("index.json", `{"schemaVersion":2,"manifests":`+list("{}")+`}`)), "index.json has more than 131072 parts"},
	} {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, tt.b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), tt.kind+":"+file, Options{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, CacheDir: t.TempDir()})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
