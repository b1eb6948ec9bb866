package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// layOut makes files: a name that ends with a slash is a directory, one with ->
// a symbolic link.
func layOut(t testing.TB, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, target, isLink := strings.Cut(name, " -> ")
		full := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		switch {
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(full, 0o755))
		case isLink:
			err = errors.Join(err, os.Symlink(target, full))
		default:
			err = errors.Join(err, os.WriteFile(full, []byte(name), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, dir string, ignore ...string) *Host {
	t.Helper()
	h, err := OpenHost(dir, ignore)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func list(t testing.TB, tree Tree) (names []string) {
	t.Helper()
	if err := Walk(tree, ".", func(name string, _ Info) error {
		names = append(names, name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// What is ignored is as docker has it (its reference, ".dockerignore files").
func TestIgnore(t *testing.T) {
	dir := layOut(t, "a.txt", "b.md", "README.md", "src/main.go", "src/tmp/x", "src/keep/deep/y", "src/keep/z", "vendor/pkg/v.go", "vendor/keep.txt", "empty/")
	for _, tt := range []struct {
		name   string
		ignore []string
		want   string
	}{
		{"nothing", nil, ". README.md a.txt b.md empty src src/keep src/keep/deep src/keep/deep/y src/keep/z src/main.go src/tmp src/tmp/x vendor vendor/keep.txt vendor/pkg vendor/pkg/v.go"},
		{"a directory", []string{"vendor", "src/tmp"}, ". README.md a.txt b.md empty src src/keep src/keep/deep src/keep/deep/y src/keep/z src/main.go"},
		{"an exception", []string{"*.md", "!README.md", "src", "vendor"}, ". README.md a.txt empty"},
		{"an exception in a directory", []string{"src", "!src/keep/z", "vendor"}, ". README.md a.txt b.md empty src src/keep src/keep/z"},
		{"an exception anywhere", []string{"*", "!**/*.go"}, ". src src/main.go vendor vendor/pkg vendor/pkg/v.go"},
		{"the last one counts", []string{"!README.md", "*.md", "src", "vendor"}, ". a.txt empty"},
		{"at any depth", []string{"**/*.go", "**/keep"}, ". README.md a.txt b.md empty src src/tmp src/tmp/x vendor vendor/keep.txt vendor/pkg"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, dir, tt.ignore...)
			if diff := cmp.Diff(strings.Fields(tt.want), list(t, h)); diff != "" {
				t.Errorf("the context (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := OpenHost(dir, []string{"["}); err == nil {
		t.Error("a pattern that is none was taken")
	}
}

func TestReadIgnore(t *testing.T) {
	dir := layOut(t, "context/x")
	context, dockerfile := filepath.Join(dir, "context"), filepath.Join(dir, "build.Dockerfile")
	if lines, err := ReadIgnore(context, dockerfile); lines != nil || err != nil {
		t.Errorf("without one: %q, %v", lines, err)
	}
	for _, f := range []struct{ name, text string }{{context + "/.dockerignore", "a\n# no\n\n b \n"}, {dockerfile + ".dockerignore", "c\n"}} {
		if err := os.WriteFile(f.name, []byte(f.text), 0o644); err != nil {
			t.Fatal(err)
		}
		want := []string{"a", "b"}
		if f.text == "c\n" {
			want = []string{"c"}
		}
		if lines, err := ReadIgnore(context, dockerfile); !cmp.Equal(lines, want) || err != nil {
			t.Errorf("ReadIgnore() = %q, %v, want %q", lines, err, want)
		}
	}
	if lines, _ := ReadIgnore(context, ""); !cmp.Equal(lines, []string{"a", "b"}) {
		t.Errorf("of standard input: %q", lines)
	}
}

// Nothing leads out of a context.
func TestResolveStaysInside(t *testing.T) {
	dir := layOut(t, "outside/secret", "in/a/file", "in/up -> ../../outside/secret", "in/abs -> /a/file", "in/etc -> /etc", "in/loop -> loop",
		"in/dir -> a", "in/a/back -> ../dir/file", "in/host -> "+os.TempDir())
	h := open(t, filepath.Join(dir, "in"))
	for name, want := range map[string]string{
		"a/file": "a/file", "dir/file": "a/file", "abs": "a/file", "a/back": "a/file", "../../a/file": "a/file", "/a/file": "a/file", "dir/../a/file": "a/file",
		"up": "", "etc/passwd": "", "loop": "", "host": "", "a/file/x": "", "none": "",
	} {
		got, _, err := Resolve(h, name)
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("Resolve(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := h.Open("up"); err == nil {
		t.Error("a link that leads out was opened")
	}
	if _, err := h.Open("../outside/secret"); err == nil {
		t.Error("a name that leads out was opened")
	}
}

func TestGlob(t *testing.T) {
	h := open(t, layOut(t, "a.txt", "b.txt", "ab.go", "d1/x.txt", "d2/y.txt", "d2/e/z.txt", "link -> d2", "arr[0].txt"), "b.txt")
	for pattern, want := range map[string]string{
		"*.txt": "a.txt arr[0].txt", "?.txt": "a.txt", "d?/*.txt": "d1/x.txt d2/y.txt", "link/*.txt": "d2/y.txt", "d2/*": "d2/e d2/y.txt",
		"*": "a.txt ab.go arr[0].txt d1 d2 link", "none*": "", "arr[[]0].txt": "arr[0].txt", "a.txt": "a.txt", "/": ".", "none/*": "", "a.txt/*": "",
	} {
		got, err := Glob(h, pattern)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("Glob(%q) = %q, %v, want %q", pattern, got, err, want)
		}
	}
	if _, err := Glob(h, "a["); err == nil {
		t.Error("a malformed pattern was taken")
	}
}

// A file that is hidden, or of a kind that cannot be copied, says so.
func TestStatOfTheHost(t *testing.T) {
	dir := layOut(t, "file", "hidden", "dir/")
	if err := errors.Join(os.Chmod(dir+"/file", 0o640|fs.ModeSetuid), os.Link(dir+"/file", dir+"/same"), syscall.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	h := open(t, dir, "hidden")
	file, err := h.Stat("file")
	same, sameErr := h.Stat("same")
	if err != nil || sameErr != nil || file.Mode != TypeRegular|0o4640 || file.UID != 0 || file.ID == (ID{}) || file.ID != same.ID {
		t.Errorf("Stat() = %+v, %+v, %v", file, same, err)
	}
	if fifo, err := h.Stat("fifo"); err != nil || fifo.Type() != TypeFIFO {
		t.Errorf("a FIFO: %+v, %v", fifo, err)
	}
	if _, err := h.Stat("hidden"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ignore file") {
		t.Errorf("a hidden file: %v", err)
	}
}

// 50,000 files that are ignored cost no more than reading their directories.
func BenchmarkIgnored(b *testing.B) {
	dir := b.TempDir()
	for d := range 50 {
		at := fmt.Sprintf("%s/node_modules/p%d", dir, d)
		if err := os.MkdirAll(at, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range 1000 {
			if err := os.WriteFile(fmt.Sprintf("%s/%d.js", at, f), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, ignore := range [][]string{{"node_modules"}, {"**/*.js", "*.log", "!keep.js"}} {
		b.Run(ignore[0], func(b *testing.B) {
			for b.Loop() {
				h, err := OpenHost(dir, ignore)
				if err != nil {
					b.Fatal(err)
				}
				list(b, h)
				h.Close()
			}
		})
	}
}

// An ignore file that nobody writes to is not waited for, and one that is too long is
// not read in part: what it hides would be copied.
func TestOddIgnoreFiles(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"a FIFO": func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"too long": func(name string) error {
			return os.WriteFile(name, []byte(strings.Repeat("# x\n", maxIgnore/4)+"secret\n"), 0o600)
		},
		"without an end": func(name string) error { return os.Symlink("/dev/zero", name) },
	} {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, ".dockerignore")); err != nil {
			t.Fatal(err)
		}
		if lines, err := ReadIgnore(dir, ""); err == nil {
			t.Errorf("%s: %d lines", name, len(lines))
		}
	}
}

// Files of two file systems are two, though they have the same number.
func TestSameNumbersOnTwoFileSystems(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("mounting takes root, and Linux")
	}
	dir := layOut(t, "a/", "b/")
	for _, part := range []string{"a", "b"} {
		at := filepath.Join(dir, part)
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "lumina", at).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("umount", at).Run() })
		if err := errors.Join(os.WriteFile(at+"/f", []byte(part), 0o600), os.Link(at+"/f", at+"/g")); err != nil {
			t.Fatal(err)
		}
	}
	h := open(t, dir, "")
	a, err := h.Stat("a/f")
	b, errB := h.Stat("b/f")
	same, errSame := h.Stat("b/g")
	if err := errors.Join(err, errB, errSame); err != nil || a.ID.Inode != b.ID.Inode || a.ID == b.ID || b.ID != same.ID {
		t.Errorf("%+v, %+v, %+v, %v", a, b, same, err)
	}
}

// Neither the Dockerfile nor the ignore file of a context is a link out of it.
func TestInside(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600),
		os.Symlink("file", filepath.Join(dir, "within")), os.Symlink(outside, filepath.Join(dir, "out")), os.Symlink(outside, filepath.Join(dir, ".dockerignore")),
		os.Symlink("../../../../etc/hostname", filepath.Join(dir, "above")), os.Symlink("/etc", filepath.Join(dir, "dir"))); err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"file": true, "within": true, "none": true, "out": false, "above": false, "dir/hostname": false, "../x": true} {
		if err := Inside(dir, filepath.Join(dir, name)); (err == nil) != ok {
			t.Errorf("Inside(%s) = %v", name, err)
		}
	}
	if lines, err := ReadIgnore(dir, ""); err == nil {
		t.Errorf("ReadIgnore() of a link out = %q", lines)
	}
}
