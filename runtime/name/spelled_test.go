package name

import (
	"os"
	"path/filepath"
	"testing"
)

// On a disk that tells cases apart no name is another's; on one that does not, as a Mac's,
// the entry's own spelling is found. TestCopies of cmd/lumina has one of those.
func TestOther(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"debian", "12"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"debian": "", "Debian": "", "DEBIAN": "", "12": "", "gone": ""}
	if _, err := os.Lstat(filepath.Join(dir, "DEBIAN")); err == nil {
		want["Debian"], want["DEBIAN"] = "debian", "debian"
	} else if err := os.WriteFile(filepath.Join(dir, "DEBIAN"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range want {
		if other, err := Other(dir, n); other != want || err != nil {
			t.Errorf("Other(%q) = %q, %v, want %q", n, other, err, want)
		}
	}
	if other, err := Other(filepath.Join(dir, "gone"), "debian"); other != "" || err != nil {
		t.Errorf("in a directory that is not there: %q, %v", other, err)
	}
}
