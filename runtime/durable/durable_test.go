package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Modes are what the caller says, also under a umask that takes all away.
func TestModes(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, err := range []error{
		MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		WriteNew(filepath.Join(dir, "new"), []byte("x"), 0o644),
		Replace(filepath.Join(dir, "replaced"), []byte("x"), 0o644),
		Replace(filepath.Join(dir, "replaced"), []byte("y"), 0o604),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]fs.FileMode{"a": 0o755, "a/b": 0o755, "new": 0o644, "replaced": 0o604} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "replaced")); string(b) != "y" {
		t.Errorf("the replaced file holds %q, %v", b, err)
	}
}

// A place that cannot be had leaves what was there, and nothing else.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := WriteNew(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(name, []byte("new"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteNew() = %v of a file that is there", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("a file took the place of a directory")
	}
	if err := MkdirAll(filepath.Join(name, "below"), 0o700); err == nil {
		t.Error("a directory was made in a file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}
