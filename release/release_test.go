package release_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/release/releasetest"
	"github.com/abdul-abdi/lumina/release/sign"
	"github.com/abdul-abdi/lumina/runtime/image"
)

var repo = github.Repo{Owner: "me", Name: "images"}

// keys makes a key and who trusts it.
func keys(t testing.TB) (*sign.PrivateKey, sign.Keys) {
	t.Helper()
	_, private, err := sign.Generate("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, private, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := sign.ReadPrivateKey(path, "")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := sign.ReadKeys(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &key, trusted
}

// world is a publisher, a server and somebody who pulls.
type world struct {
	server    *githubtest.Server
	publisher *image.Store
	store     *image.Store
	cache     string
	key       *sign.PrivateKey
	from      release.From
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{server: githubtest.New(t), publisher: image.NewStore(filepath.Join(t.TempDir(), "images"))}
	w.key, w.from.Keys = keys(t)
	w.from.Repo = repo
	w.from.Client = w.client(t, "")
	w.newHome(t)
	files := releasetest.Debian()
	files["noise"] = string(releasetest.Noise(30_000, 3))
	releasetest.Install(t, w.publisher, "mine", "amd64", files)
	releasetest.Install(t, w.publisher, "other", "arm64", map[string]string{"bin/sh": "#!", "etc/passwd": "root"})
	return w
}

// newHome is another state directory that pulls.
func (w *world) newHome(t testing.TB) {
	home := t.TempDir()
	w.store, w.cache = image.NewStore(filepath.Join(home, "images")), filepath.Join(home, "pull")
}

func (w *world) client(t testing.TB, token string) *github.Client {
	t.Helper()
	c, err := github.New(github.Options{BaseURL: w.server.URL, Token: token, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) build(t testing.TB, tag string) []github.File {
	t.Helper()
	files, err := release.Build(t.Context(), release.BuildOptions{
		Store: w.publisher, Images: []release.Source{{Image: "mine", Name: "default"}, {Image: "other", Name: "default"}},
		Tag: tag, Dir: t.TempDir(), Key: w.key, PartSize: 30_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (w *world) publish(t testing.TB, tag string) github.Published {
	t.Helper()
	done, err := w.client(t, githubtest.Token).Publish(t.Context(), repo, tag, w.build(t, tag), github.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func (w *world) pull(t testing.TB) (release.Pulled, error) {
	t.Helper()
	return w.from.Pull(t.Context(), w.options())
}

func (w *world) options() release.PullOptions {
	return release.PullOptions{ID: "default", Architecture: "amd64", Store: w.store, CacheDir: w.cache, MaxSize: 1 << 30}
}

// tree lists the files below the directory of the images and of the downloads.
func (w *world) tree(t testing.TB) []string {
	t.Helper()
	var names []string
	home := filepath.Dir(w.cache)
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(home, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var installedTree = []string{"images/default/image.json", "images/default/initramfs.cpio", "images/default/kernel", "images/default/rootfs.erofs"}

func TestPublishAndPull(t *testing.T) {
	w := newWorld(t)
	first := w.publish(t, "v1")
	if len(first.Uploaded) != 11 {
		t.Errorf("%d files: %v", len(first.Uploaded), first.Uploaded)
	}
	pulled, err := w.pull(t)
	if err != nil {
		t.Fatal(err)
	}
	if !pulled.Fresh || pulled.Name != "default" || pulled.Architecture != "amd64" {
		t.Errorf("%+v", pulled)
	}
	if diff := cmp.Diff(installedTree, w.tree(t)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	mine, err := w.publisher.Open("mine")
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	for _, name := range catalog.Files() {
		want, err := os.ReadFile(mine.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(filepath.Dir(w.cache), "images", "default", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	// Publishing again changes nothing, pulling again fetches nothing.
	if again := w.publish(t, "v1"); len(again.Kept) != 11 || len(again.Uploaded)+len(again.Replaced) != 0 {
		t.Errorf("again: %+v", again)
	}
	w.server.Requests()
	if pulled, err := w.pull(t); err != nil || pulled.Fresh {
		t.Errorf("again: %+v, %v", pulled, err)
	}
	for _, r := range w.server.Requests() {
		if strings.Contains(r.Path, ".zst") {
			t.Errorf("again: %+v", r)
		}
	}
	// An image of the user's is not overwritten.
	if err := w.store.Remove("default"); err != nil {
		t.Fatal(err)
	}
	releasetest.Install(t, w.store, "default", "amd64", map[string]string{"mine": ""})
	if _, err := w.pull(t); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("%v", err)
	}
	o := w.options()
	o.Force = true
	if pulled, err := w.from.Pull(t.Context(), o); err != nil || !pulled.Fresh {
		t.Errorf("with force: %+v, %v", pulled, err)
	}
	// Under another name, the other architecture.
	o = w.options()
	o.ID, o.As = "default-arm64", "foreign"
	if pulled, err := w.from.Pull(t.Context(), o); err != nil || pulled.Name != "foreign" || pulled.Architecture != "arm64" {
		t.Errorf("%+v, %v", pulled, err)
	}
}

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

// Any byte of any file that is downloaded counts: a flipped one is refused, in
// one line, and leaves nothing.
func TestAnyFlippedByteIsRefused(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	if _, err := w.pull(t); err != nil {
		t.Fatal(err)
	}
	// What a pull downloads.
	var names []string
	for _, r := range w.server.Requests() {
		if r.Storage && r.Method == http.MethodGet {
			names = append(names, filepath.Base(r.Path))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if want := []string{"catalog.json", "catalog.json.minisig", "default-amd64.tar.zst.001", "default-amd64.tar.zst.002"}; len(names) < 4 || !slices.Equal(names[:4], want) {
		t.Fatalf("it downloads %v", names)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for _, name := range names {
		good := w.server.Asset("v1", name)
		positions := []int{0, len(good) - 1}
		for range 30 {
			positions = append(positions, random.IntN(len(good)))
		}
		for _, position := range positions {
			bad := bytes.Clone(good)
			bad[position] ^= byte(1 + random.IntN(255))
			w.server.SetAsset("v1", name, bad)
			w.newHome(t)
			_, err := w.pull(t)
			if !errors.Is(err, sign.ErrSignature) && !errors.Is(err, release.ErrDigest) && !errors.Is(err, catalog.ErrInvalid) {
				t.Fatalf("%s, byte %d, %02x for %02x: %v", name, position, bad[position], good[position], err)
			}
			if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "v1") {
				t.Errorf("%s: an unclear error: %v", name, err)
			}
			if left := w.tree(t); len(left) != 0 {
				t.Fatalf("%s, byte %d: it leaves %v", name, position, left)
			}
		}
		w.server.SetAsset("v1", name, good)
	}
	if _, err := w.pull(t); err != nil {
		t.Errorf("when all is good again: %v", err)
	}
}

// What is not the catalog's is refused though its signature is good.
func TestSignedButWrong(t *testing.T) {
	comment := func(tag string) string { return "lumina release " + tag + " catalog.json" }
	tests := []struct {
		name   string
		change func(t *testing.T, w *world, c *catalog.Catalog) (text, signature []byte)
		want   string
	}{
		{"a placeholder", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			c.Images[0].Parts[0].SHA256 = strings.Repeat("0", 64)
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "is a placeholder"},
		{"a missing digest", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.ReplaceAll(b, []byte(`"sha256":"`+c.Images[0].Parts[0].SHA256+`"`), []byte(`"x":""`))
			return b, w.key.Sign(b, comment("v1"))
		}, "not a SHA-256"},
		{"the catalog of another release", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			w.publish(t, "v0")
			return w.server.Asset("v0", catalog.Name), w.server.Asset("v0", catalog.Signature)
		}, "want \"lumina release v1 catalog.json\""},
		{"another file", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			f := c.Images[0].Files[image.Kernel]
			f.SHA256 = c.Images[0].Files[image.Rootfs].SHA256
			c.Images[0].Files[image.Kernel] = f
			b, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "kernel has another digest"},
		{"a smaller size", func(t *testing.T, w *world, c *catalog.Catalog) ([]byte, []byte) {
			f := c.Images[0].Files[image.Kernel]
			f.Size--
			c.Images[0].Files[image.Kernel] = f
			c.Images[0].Size--
			b, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return b, w.key.Sign(b, comment("v1"))
		}, "in place of kernel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.name == "the catalog of another release" {
				w.publish(t, "v0")
			}
			w.publish(t, "v1")
			c, err := catalog.Parse(w.server.Asset("v1", catalog.Name))
			if err != nil {
				t.Fatal(err)
			}
			text, signature := tt.change(t, w, c)
			w.server.SetAsset("v1", catalog.Name, text)
			w.server.SetAsset("v1", catalog.Signature, signature)
			_, err = w.pull(t)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if left := w.tree(t); len(left) != 0 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
}

func TestPullWithoutTrust(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	good := w.from.Keys
	w.from.Keys = nil
	w.server.Requests()
	if _, err := w.pull(t); err == nil || !strings.Contains(err.Error(), "LUMINA_PUBLIC_KEY") {
		t.Errorf("%v", err)
	}
	if r := w.server.Requests(); len(r) != 0 {
		t.Errorf("it asks the server: %v", r)
	}
	_, w.from.Keys = keys(t)
	if _, err := w.pull(t); !errors.Is(err, sign.ErrSignature) {
		t.Errorf("%v", err)
	}
	w.from.Keys, w.from.Tag = good, "v2"
	if _, err := w.pull(t); !errors.Is(err, github.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func isArchive(r githubtest.Request) bool { return r.Storage && strings.Contains(r.Path, ".zst") }

// An interrupted pull leaves what it has, and the next one goes on there.
func TestPullResumes(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	ctx, cancel := context.WithCancel(t.Context())
	o := w.options()
	o.Progress = func(step, _ string, done, _ int64) {
		if step == "fetch" && done >= 10_000 {
			cancel()
		}
	}
	w.server.SetFault(func(r githubtest.Request) githubtest.Fault {
		if isArchive(r) {
			return githubtest.Fault{CutAfter: 10_000}
		}
		return githubtest.Fault{}
	})
	if _, err := w.from.Pull(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if left := w.tree(t); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
	w.server.SetFault(nil)
	w.server.Requests()
	if _, err := w.pull(t); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, r := range w.server.Requests() {
		if isArchive(r) && first == "" {
			first = r.Range
		}
	}
	if first != "bytes=10000-" {
		t.Errorf("it goes on at %q", first)
	}
	if diff := cmp.Diff(installedTree, w.tree(t)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What an earlier pull left may be damaged: then it is fetched again.
func TestDamagedCache(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	c, err := w.from.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.cache, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, p := range c.Images[0].Parts {
		size := p.Size
		if i == 0 {
			size /= 2
		}
		if err := os.WriteFile(filepath.Join(w.cache, p.SHA256), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.pull(t); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(installedTree, w.tree(t)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Many that want the same image at once fetch it once.
func TestPullSideBySide(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	w.server.Requests()
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 5 {
		wg.Go(func() {
			pulled, err := w.from.Pull(t.Context(), w.options())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if pulled.Fresh {
				fresh++
			}
		})
	}
	wg.Wait()
	fetched := map[string]int{}
	for _, r := range w.server.Requests() {
		if isArchive(r) {
			fetched[r.Path]++
		}
	}
	for path, n := range fetched {
		if n != 1 {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
	if fresh != 1 {
		t.Errorf("%d pulls installed it", fresh)
	}
}

// Who waits for another pull can be interrupted; cleaning waits for nobody.
func TestPullWaits(t *testing.T) {
	w := newWorld(t)
	w.publish(t, "v1")
	hanging, stop := context.WithCancel(t.Context())
	inFetch := make(chan struct{})
	w.server.SetFault(func(r githubtest.Request) githubtest.Fault {
		if isArchive(r) {
			close(inFetch)
			return githubtest.Fault{Hang: true}
		}
		return githubtest.Fault{}
	})
	ended := make(chan error)
	go func() {
		_, err := w.from.Pull(hanging, w.options())
		ended <- err
	}()
	<-inFetch
	if err := release.CleanCache(w.cache); err != nil {
		t.Error(err)
	}
	if left := w.tree(t); len(left) != 1 {
		t.Errorf("cleaning took what a pull uses: %v", left)
	}
	second, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := w.from.Pull(second, w.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// The lock that the second one waited for may come to it only now, for a moment.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := release.CleanCache(w.cache); err != nil {
			t.Fatal(err)
		}
		left := w.tree(t)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("cleaning leaves %v", left)
		}
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

func TestParseSource(t *testing.T) {
	tests := []struct {
		in   string
		want release.Source
		ok   bool
	}{
		{"default", release.Source{Image: "default", Name: "default"}, true},
		{"default-arm64=default", release.Source{Image: "default-arm64", Name: "default"}, true},
		{"=a", release.Source{}, false}, {"a=", release.Source{}, false}, {"../a", release.Source{}, false}, {"a=b=c", release.Source{}, false},
	}
	for _, tt := range tests {
		got, err := release.ParseSource(tt.in)
		if (err == nil) != tt.ok || got != tt.want || err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
}
