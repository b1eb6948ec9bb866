package release_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

var installedTree = []string{"images/default/image.json", "images/default/initramfs.cpio", "images/default/kernel", "images/default/prebuilt", "images/default/rootfs.erofs"}

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
	got, err := w.store.Open("default")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Prebuilt() || mine.Prebuilt() {
		t.Errorf("prebuilt: pulled %t, want true; made %t, want false", got.Prebuilt(), mine.Prebuilt())
	}
	got.Close() // an image that is open is not removed
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
