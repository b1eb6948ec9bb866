package dockerfile

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// What a program of the context may do (setcap) is copied with it; other attributes
// are the host's own.
func TestCapabilitiesAreCopied(t *testing.T) {
	b := newBench(t)
	program := filepath.Join(b.context, "b.sh")
	// cap_net_bind_service=ep, as setcap(8) writes it.
	raw := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	err := unix.Setxattr(program, "security.capability", []byte(raw), 0)
	if errors.Is(err, unix.EPERM) {
		t.Skip("only root gives capabilities away")
	}
	if err := errors.Join(err, unix.Setxattr(program, "user.note", []byte("x"), 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.build(t, "capable", "FROM scratch\nCOPY a.txt b.sh /\nCOPY --chown=9 b.sh /owned\n"); err != nil {
		t.Fatal(err)
	}
	root, err := files.OpenImage(filepath.Join(b.home, "images/capable", image.Rootfs))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{"b.sh": raw, "owned": raw, "a.txt": ""} {
		i, err := root.Stat(name)
		if err != nil || i.Xattrs["security.capability"] != want || want != "" && len(i.Xattrs) != 1 {
			t.Errorf("%s has %q, %v, want %q", name, i.Xattrs, err, want)
		}
	}
}
