package release_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// A full disk leaves the store as it was and keeps the download, which is not
// fetched again when there is room.
func TestPullOntoFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	w := newWorld(t)
	w.publish(t, "v1")
	home := t.TempDir()
	mount := func(options string) {
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "none", home).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
	}
	mount("size=100k")
	t.Cleanup(func() { _ = syscall.Unmount(home, syscall.MNT_DETACH) })
	w.store, w.cache = image.NewStore(filepath.Join(home, "images")), filepath.Join(home, "pull")
	if _, err := w.pull(t); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v", err)
	}
	if names, err := w.store.List(); err != nil || len(names) != 0 {
		t.Errorf("images %v, %v", names, err)
	}
	mount("remount,size=1m")
	w.server.Requests()
	if _, err := w.pull(t); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.server.Requests() {
		if isArchive(r) {
			t.Errorf("fetched again: %+v", r)
		}
	}
	if diff := cmp.Diff(installedTree, w.tree(t)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
