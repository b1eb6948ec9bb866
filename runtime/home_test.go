package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What can be no state directory is refused by its name.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file, dangling, loop := filepath.Join(dir, "file"), filepath.Join(dir, "dangling"), filepath.Join(dir, "loop")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{dangling: filepath.Join(dir, "none"), loop: loop} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for home, want := range map[string]string{
		file:                       "not a directory",
		filepath.Join(file, "x"):   "not a directory",
		dangling:                   "a link that leads nowhere",
		loop:                       "too many",
		"/dev/null":                "not a directory",
		filepath.Join(loop, "x"):   "too many",
		strings.Repeat("/a", 5000): "too long",
	} {
		_, err := Open(Options{Home: home})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "LUMINA_HOME") {
			t.Errorf("Open(%.30q) = %v, want %q", home, err, want)
		}
	}
	if _, err := Open(Options{Home: filepath.Join(dir, "new", "home")}); err != nil {
		t.Errorf("one that is not there yet: %v", err)
	}
}
