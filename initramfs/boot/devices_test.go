//go:build linux

package boot

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAccessOf(t *testing.T) {
	char, block := fs.ModeDevice|fs.ModeCharDevice, fs.ModeDevice
	tests := []struct {
		name string
		mode fs.FileMode
		want access
		ok   bool
	}{
		{"fuse", char, access{"", 0o666}, true},
		{"net/tun", char, access{"", 0o666}, true},
		{"kvm", char, access{"kvm", 0o666}, true},
		{"ttyS0", char, access{"dialout", 0o660}, true},
		{"vda", block, access{"disk", 0o660}, true},
		{"sr0", block, access{"cdrom", 0o660}, true},
		{"null", char, access{"disk", 0o660}, false},
		{"vport0p1", char, access{"disk", 0o660}, false},
		{"fuse", 0, access{}, false}, // a file that somebody made
		{"tty", fs.ModeSymlink, access{}, false},
	}
	for _, tt := range tests {
		if got, ok := accessOf(tt.name, tt.mode); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestGroupID(t *testing.T) {
	file := []byte("root:x:0:\nkvm\nkvm:x:no:\nkvm:x:-1:\nkvms:x:7:\nkvm:x:104:a,b\nkvm:x:5:\ndisk:x:6") // no newline
	for name, want := range map[string]int{"kvm": 104, "disk": 6, "none": 0, "": 0, "roo": 0} {
		if got := groupID(file, name); got != want {
			t.Errorf("groupID(%q) = %d, want %d", name, got, want)
		}
	}
}

// The image's files are read as its own processes would, whatever they are.
func TestReadInside(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "real"), []byte("inside"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "/real", "up": "../../../real", "out": "/etc/passwd", "loop": "loop", "null": "/dev/zero"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"real": "inside", "link": "inside", "up": "inside", "out": "", "loop": "", "null": "", "none": "", ".": ""} {
		if b, err := readInside(root, name); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
