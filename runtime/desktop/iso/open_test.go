package iso

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenWaitsForNobody(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file.iso"), filepath.Join(dir, "pipe.iso")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, want := range map[string]string{pipe: "a pipe", dir: "a directory", os.DevNull: "a device"} {
		if f, err := Open(name); !errors.Is(err, ErrNoFile) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
