package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestVerifyFindsAFlippedBit(t *testing.T) {
	s := NewStore(t.TempDir())
	install(t, s, "a", "content")
	h, err := s.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Verify(context.Background()); err != nil {
		t.Errorf("Verify() = %v", err)
	}
	if err := os.WriteFile(h.Path(Kernel), []byte("c0ntent"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Verify(context.Background()); !errors.Is(err, ErrInvalid) {
		t.Errorf("Verify() = %v, want ErrInvalid", err)
	}
}

// What is in the place of an image's files is not an image, at once: nothing is waited
// for, nothing is read without an end, and it can be removed.
func TestOddFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(path string) error
		want error
	}{
		{"FIFO", func(path string) error { return syscall.Mkfifo(path, 0o600) }, ErrInvalid},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, ErrInvalid},
		{"link to a file outside", func(path string) error { return os.Symlink("/etc/passwd", path) }, ErrInvalid},
		{"link to a device", func(path string) error { return os.Symlink("/dev/zero", path) }, ErrInvalid},
		{"link to itself", func(path string) error { return os.Symlink(filepath.Base(path), path) }, ErrInvalid},
		{"huge file", func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) }, ErrInvalid},
		{"empty file", func(path string) error { return os.WriteFile(path, nil, 0o600) }, ErrInvalid},
		{"nothing", func(string) error { return nil }, nil},
	}
	for _, file := range []string{metadata, Rootfs} {
		for _, tt := range tests {
			t.Run(file+" "+tt.name, func(t *testing.T) {
				s := NewStore(t.TempDir())
				install(t, s, "a", "content")
				path := filepath.Join(s.dir, "a", file)
				if err := errors.Join(os.Remove(path), tt.make(path)); err != nil {
					t.Fatal(err)
				}
				h, err := s.Open("a")
				if err == nil {
					h.Close()
				}
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("Open() = %v, want %v", err, tt.want)
				}
				if err := s.Remove("a"); err != nil {
					t.Errorf("Remove() = %v", err)
				}
				if names, err := s.List(); len(names) != 0 || err != nil {
					t.Errorf("List() = %q, %v", names, err)
				}
			})
		}
	}
}

// A FIFO in the place of a store or of an image is not waited for.
func TestFIFOsForDirectories(t *testing.T) {
	s := NewStore(t.TempDir())
	install(t, s, "b", "content")
	if err := syscall.Mkfifo(filepath.Join(s.dir, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Open("a"); err == nil {
		h.Close()
		t.Error("Open() of a FIFO = nil")
	}
	if _, err := s.Clean(); err != nil {
		t.Errorf("Clean() beside a FIFO: %v", err)
	}
	if err := s.Remove("a"); err != nil {
		t.Errorf("Remove() of a FIFO: %v", err)
	}
	if names, err := s.List(); len(names) != 1 || err != nil {
		t.Errorf("List() = %q, %v", names, err)
	}
	store := NewStore(filepath.Join(t.TempDir(), "images"))
	if err := syscall.Mkfifo(store.dir, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Clean(); err == nil {
		t.Error("Clean() of a store that is a FIFO = nil")
	}
	if h, err := store.Open("a"); err == nil {
		h.Close()
		t.Error("Open() in a store that is a FIFO = nil")
	}
	if err := store.Remove("a"); err == nil {
		t.Error("Remove() in a store that is a FIFO = nil")
	}
}

// An image that lacks a file is damaged, which is not to say that there is none.
func TestFileIsMissing(t *testing.T) {
	s := NewStore(t.TempDir())
	for _, name := range []string{Kernel, Initramfs, Rootfs} {
		install(t, s, "a", "x")
		if err := os.Remove(filepath.Join(s.dir, "a", name)); err != nil {
			t.Fatal(err)
		}
		_, err := s.Open("a")
		if want := "its file " + name + " is missing; remove it with: lumina images rm a"; !errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotFound) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Open() = %v, want %q", err, want)
		}
		if err := s.Remove("a"); err != nil {
			t.Error(err)
		}
	}
}

// A directory without a description is told as what it is, and removed as one.
func TestDirectoryWithoutDescription(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := os.Mkdir(filepath.Join(s.dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("a"); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotFound) || !strings.HasSuffix(err.Error(), "it has no image.json; remove it with: lumina images rm a") {
		t.Errorf("Open() = %v", err)
	}
	if err := s.Remove("a"); err != nil {
		t.Errorf("Remove() = %v", err)
	}
}
