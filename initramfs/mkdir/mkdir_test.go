package mkdir

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAll(t *testing.T) {
	tests := []struct {
		name  string
		links map[string]string // name to target; %ROOT is the test's directory
		make  string
		at    string // where the directory really is; "" for an error
	}{
		{"plain", nil, "a/b/c", "a/b/c"},
		{"absolute link", map[string]string{"run": "%ROOT/var/run"}, "run/x", "var/run/x"},
		{"relative link", map[string]string{"etc": "usr/share/etc"}, "etc", "usr/share/etc"},
		{"link to a link", map[string]string{"a": "b", "b": "c/d"}, "a/x", "c/d/x"},
		{"link through a link's parent", map[string]string{"l": "real/deep", "m": "l/../up"}, "m", "real/up"},
		{"loop", map[string]string{"a": "b", "b": "a"}, "a/x", ""},
		{"link to itself with a tail", map[string]string{"a": "a/x"}, "a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, target := range tt.links {
				if rest, ok := cutRoot(target); ok {
					target = root + rest
				}
				if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
			}
			err := All(root+"/"+tt.make, 0o750)
			if (err != nil) != (tt.at == "") {
				t.Fatalf("All: %v", err)
			}
			if tt.at == "" {
				return
			}
			info, err := os.Lstat(filepath.Join(root, tt.at))
			if err != nil || !info.IsDir() || info.Mode().Perm() != 0o750 {
				t.Errorf("%s: %v, %v", tt.at, info, err)
			}
		})
	}
}

func cutRoot(s string) (string, bool) {
	const mark = "%ROOT"
	if len(s) >= len(mark) && s[:len(mark)] == mark {
		return s[len(mark):], true
	}
	return s, false
}

func TestAllOverAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, file + "/x"} {
		if err := All(name, 0o755); err == nil {
			t.Errorf("All(%q) went over a file", name)
		}
	}
}
