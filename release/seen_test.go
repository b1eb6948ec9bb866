package release_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
)

// Whoever answers for a publisher cannot give out yesterday's release as today's.
func TestOlderReleaseIsRefused(t *testing.T) {
	w := newWorld(t)
	issue := func(tag string, at time.Time) {
		t.Helper()
		files, err := release.Build(t.Context(), release.BuildOptions{Store: w.publisher, Images: []release.Source{{Image: "mine", Name: "default"}},
			Tag: tag, Dir: t.TempDir(), Key: w.key, Issued: at})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.client(t, githubtest.Token).Publish(t.Context(), repo, tag, files, github.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	issue("v1", now)
	issue("v2", now.Add(time.Hour))
	issue("v3", now.Add(time.Hour)) // at once: as new
	home := t.TempDir()
	w.from.Seen = filepath.Join(home, "state", "releases.json")
	steps := []struct {
		tag   string
		older bool // allowed
		want  error
	}{{"v1", false, nil}, {"v2", false, nil}, {"v1", false, release.ErrOlder}, {"v1", true, nil}, {"v1", false, release.ErrOlder}, {"v3", false, nil}, {"v2", false, nil}}
	for n, s := range steps {
		w.from.Tag, w.from.AllowOlder = s.tag, s.older
		if _, err := w.from.Catalog(t.Context()); !errors.Is(err, s.want) {
			t.Errorf("step %d: Catalog() of %s = %v, want %v", n, s.tag, err, s.want)
		}
	}
	// Also where an image is pulled, and where a tag is not named.
	w.from.Tag, w.from.AllowOlder = "v1", false
	if _, err := w.pull(t); !errors.Is(err, release.ErrOlder) || !strings.Contains(err.Error(), "--allow-older") {
		t.Errorf("Pull() = %v", err)
	}
	if names, err := w.store.List(); len(names) != 0 || err != nil {
		t.Errorf("installed %q, %v", names, err)
	}
	// The same repository, spelled otherwise, is the same publisher.
	b, err := os.ReadFile(w.from.Seen)
	if err != nil {
		t.Fatal(err)
	}
	spelled := strings.Replace(string(b), w.from.Repo.String(), strings.ToUpper(w.from.Repo.String()), 1)
	if err := os.WriteFile(w.from.Seen, []byte(spelled), 0o600); err != nil || spelled == string(b) {
		t.Fatal(err, spelled)
	}
	if _, err := w.from.Catalog(t.Context()); !errors.Is(err, release.ErrOlder) {
		t.Errorf("Catalog() = %v after %s", err, spelled)
	}
	// Another repository is another publisher, and what is damaged is not forgotten.
	if err := os.WriteFile(w.from.Seen, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.from.Catalog(t.Context()); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("Catalog() = %v with a damaged memory", err)
	}
}
