package release_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

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
	// What a link leads to is not written to.
	outside := filepath.Join(t.TempDir(), "outside")
	link := filepath.Join(w.cache, c.Images[0].Parts[0].SHA256)
	if err := errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Symlink(outside, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pull(t); !errors.Is(err, statefile.ErrDamaged) {
		t.Errorf("with a link in the cache: %v", err)
	}
	if b, err := os.ReadFile(outside); string(b) != "kept" {
		t.Errorf("what it leads to has %q, %v", b, err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
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
	polltest.Until(t, func() error {
		err := release.CleanCache(w.cache)
		if left := w.tree(t); err == nil && len(left) > 0 {
			err = fmt.Errorf("cleaning leaves %v", left)
		}
		return err
	})
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
