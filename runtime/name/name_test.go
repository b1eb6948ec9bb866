package name

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{"a", "0", "debian-12.1_x", "A", "X", "Ubuntu-24.04", strings.Repeat("n", MaxLength)} {
		if err := Check("image", good); err != nil {
			t.Errorf("Check(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".tmp", "-x", "a/b", "a b", "ä", "a\x00", strings.Repeat("n", MaxLength+1)} {
		if Check("image", bad) == nil {
			t.Errorf("Check(%q) = nil", bad)
		}
	}
}
