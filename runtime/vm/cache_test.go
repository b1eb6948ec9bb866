package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without a home nothing is kept where others could have put it.
func TestCacheDir(t *testing.T) {
	home, tmp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", home)
	if got := CacheDir(); filepath.Base(got) != "lumina" || !strings.HasPrefix(got, home) {
		t.Errorf("with a home: %s", got)
	}
	t.Setenv("HOME", "")
	own := filepath.Join(tmp, fmt.Sprintf("lumina-%d", os.Getuid()))
	if got := CacheDir(); got != own {
		t.Errorf("without: %s", got)
	}
	if got := CacheDir(); got != own {
		t.Errorf("again: %s", got)
	}
	if err := os.Chmod(own, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := CacheDir(); got != "" {
		t.Errorf("in a directory that is open to all: %s", got)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(home, own); err != nil {
		t.Fatal(err)
	}
	if got := CacheDir(); got != "" {
		t.Errorf("through a link: %s", got)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(own, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if got := CacheDir(); got != "" {
			t.Errorf("in another's: %s", got)
		}
	}
}
