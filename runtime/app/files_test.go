package app

import "testing"

// TestPortable has a guest's names lead nowhere on another system.
func TestPortable(t *testing.T) {
	for name, want := range map[string]string{
		"a/b c.txt": "a/b c.txt", `..\..\evil.bat`: ".._.._evil.bat", `C:\x`: "C__x", "a\nb\x1b[1m\xff": "a_b_[1m_", "größe/ж": "größe/ж", "\u202etxt": "_txt",
	} {
		if got := portable(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
