package name

import (
	"os"
	"path/filepath"
	"testing"
)

// On a disk that tells cases apart no name is another's. TestCopies of cmd/lumina has one
// that does not.
func TestOther(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"debian", "Both", "bOTH", "12"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"debian", "Debian", "DEBIAN", "Both", "bOTH", "12", "gone"} {
		if other, err := Other(dir, n); other != "" || err != nil {
			t.Errorf("Other(%q) = %q, %v", n, other, err)
		}
	}
	if other, err := Other(filepath.Join(dir, "gone"), "debian"); other != "" || err != nil {
		t.Errorf("in a directory that is not there: %q, %v", other, err)
	}
}
