//go:build unix

package statefile

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// None of these is waited for, followed or taken for a file.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"file": "content", "empty": "", "exact": strings.Repeat("x", 100), "long": strings.Repeat("x", 101)} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700), os.Symlink("file", at("link")), os.Symlink("nowhere", at("dangling"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{"file": "content", "empty": "", "exact": strings.Repeat("x", 100),
		"long": "longer than 100 bytes", "fifo": "a FIFO", "dir": "a directory", "link": "a link", "dangling": "a link", "socket": "a socket", "none": "no such file"} {
		b, err := Read(at(name), 100)
		in, inErr := OpenIn(root, name)
		if inErr == nil {
			_, inErr = ReadAll(in, 100)
			in.Close()
		}
		made, madeErr := Create(at(name))
		if madeErr == nil {
			made.Close()
		}
		if whole := slices.Contains([]string{"file", "empty", "exact"}, name) || name == "long" || name == "none"; whole != (madeErr == nil) || !whole && (!errors.Is(madeErr, ErrDamaged) || !strings.Contains(madeErr.Error(), want)) {
			t.Errorf("Create(%s) = %v", name, madeErr)
		}
		switch name {
		case "file", "empty", "exact":
			if err != nil || inErr != nil || string(b) != want {
				t.Errorf("%s: %q, %v, %v", name, b, err, inErr)
			}
		default:
			for _, err := range []error{err, inErr} {
				if err == nil || !strings.Contains(err.Error(), want) || name != "none" && !errors.Is(err, ErrDamaged) || name == "none" && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v, want %q", name, err, want)
				}
			}
		}
	}
}

// A link is not written through, also where it leads to nothing.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	link, to := filepath.Join(dir, "link"), filepath.Join(dir, "to")
	if err := os.Symlink(to, link); err != nil {
		t.Fatal(err)
	}
	if f, err := Create(link); !errors.Is(err, ErrDamaged) {
		t.Errorf("Create() = %v, %v", f, err)
	}
	if _, err := os.Lstat(to); err == nil {
		t.Error("what the link leads to was made")
	}
	f, err := Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

// A FIFO in the place of a directory is not waited for.
func TestOpenDir(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{fifo: unix.ENOTDIR, dir: nil, link: nil, filepath.Join(dir, "none"): os.ErrNotExist} {
		d, err := OpenDir(name)
		if !errors.Is(err, want) {
			t.Errorf("OpenDir(%s) = %v, want %v", filepath.Base(name), err, want)
		}
		d.Close()
		r, err := OpenRoot(name)
		if !errors.Is(err, want) {
			t.Errorf("OpenRoot(%s) = %v, want %v", filepath.Base(name), err, want)
		}
		if r != nil {
			r.Close()
		}
	}
}

// What has a lock's name and is no file is nobody's lock, and what it leads to stays.
func TestCreateLock(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	name := filepath.Join(dir, "x.lock")
	for what, make := range map[string]func() error{
		"link": func() error {
			return errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Symlink(outside, name))
		},
		"to none":   func() error { return os.Symlink(filepath.Join(dir, "none"), name) },
		"FIFO":      func() error { return unix.Mkfifo(name, 0o600) },
		"directory": func() error { return os.Mkdir(name, 0o700) },
		"file":      func() error { return os.WriteFile(name, nil, 0o600) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		f, err := CreateLock(name)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		f.Close()
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", what, info, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "none")); err == nil {
			t.Errorf("%s: what it leads to was made", what)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "kept" {
		t.Errorf("what the link leads to is %q, %v", b, err)
	}
}

// A file is written anew, not through what has its name or that of its making.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	outside, name := filepath.Join(dir, "outside"), filepath.Join(dir, "x")
	if err := errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Symlink(outside, name), os.Symlink(outside, name+".new")); err != nil {
		t.Fatal(err)
	}
	if err := Replace(name, []byte("content")); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(name, 100); err != nil || string(b) != "content" {
		t.Errorf("it is %q, %v", b, err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "kept" {
		t.Errorf("what the link leads to is %q, %v", b, err)
	}
}
