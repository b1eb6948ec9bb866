package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file that a user names for a result is checked before there is any work.
func TestNamedFilesAreChecked(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{os.Mkdir(dir+"/d.raw", 0o755), os.Symlink("none", dir+"/dangling.raw"), syscall.Mkfifo(dir+"/fifo.raw", 0o600), os.WriteFile(dir+"/file", nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"images", "export", "debian", "--force", "-o", dir + "/d.raw"},
		{"images", "export", "debian", "--force", "-o", dir + "/dangling.raw"},
		{"images", "export", "debian", "--force", "-o", dir + "/fifo.raw"},
		{"images", "export", "debian", "-o", dir + "/file/x.raw"},
		{"desktop", "screenshot", "none", dir},
		{"desktop", "screenshot", "none", dir + "/file/x"},
		{"desktop", "boot", "none", "--headless", "--serial", dir},
		{"desktop", "boot", "none", "--headless", "--detach", "--serial", "/dev/stdout"},
		{"bench", "boot", "--image", "none", "--html", dir},
		{"release", "keygen", dir},
		{"release", "keygen", dir + "/file/key"},
	} {
		if r := lumina(t, args...); r.code != 2 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("lumina %q: exit code %d, %q", args, r.code, r.stderr)
		}
	}
	// The public half is in the way: no secret one is left behind.
	write(t, dir+"/key.pub", "")
	if r := lumina(t, "release", "keygen", dir+"/key"); r.code != 125 {
		t.Errorf("keygen: exit code %d, %s", r.code, r.stderr)
	}
	if _, err := os.Lstat(dir + "/key"); err == nil {
		t.Error("half a key was left")
	}
	lumina(t, "release", "keygen", dir+"/made/key").succeeded(t)

	// A disk goes where a link leads, and keeps the mode of what was there.
	write(t, dir+"/target", "old")
	if err := os.Chmod(dir+"/target", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", dir+"/link.qcow2"); err != nil {
		t.Fatal(err)
	}
	if r := lumina(t, "images", "export", "debian", "-o", dir+"/link.qcow2"); r.code != 125 || !strings.Contains(r.stderr, "--force") {
		t.Errorf("export over a link: exit code %d, %s", r.code, r.stderr)
	}
	lumina(t, "images", "export", "debian", "--force", "-o", dir+"/link.qcow2").succeeded(t)
	info, err := os.Stat(dir + "/target")
	if err != nil || info.Size() < 1<<20 || info.Mode() != 0o600 {
		t.Errorf("what the link leads to is %v, %v", info, err)
	}
	if link, err := os.Lstat(dir + "/link.qcow2"); err != nil || link.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", link, err)
	}
	lumina(t, "images", "export", "debian", "-o", dir+"/a/b/disk.raw").succeeded(t)
	if left, _ := filepath.Glob(dir + "/.*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
