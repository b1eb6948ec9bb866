package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// build makes files: NAME=CONTENT, NAME/ for a directory, NAME->TARGET for a link.
func build(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, content, isFile := strings.Cut(f, "=")
		link, target, isLink := strings.Cut(f, "->")
		path := filepath.Join(dir, name)
		var err error
		switch {
		case isLink:
			path = filepath.Join(dir, link)
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			err = os.Symlink(target, path)
		case isFile:
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			err = os.WriteFile(path, []byte(content), 0o644)
		default:
			err = os.MkdirAll(path, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listed is what build made, but for the directories that others are in.
func listed(t *testing.T, dir string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			if below, _ := os.ReadDir(path); len(below) == 0 {
				found = append(found, name+"/")
			}
		case e.Type()&os.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			found = append(found, name+"->"+target)
		case e.Type().IsRegular():
			b, _ := os.ReadFile(path)
			found = append(found, name+"="+string(b))
		default:
			found = append(found, name+"?")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(found)
	return strings.Join(found, " ")
}

// The rules of cp -r and rsync: on either side, since it is the same code.
func TestRules(t *testing.T) {
	tests := []struct {
		name                string
		source, destination string
		there               []string // at the destination before
		want                string   // all that is at the destination after
		wantErr             string
	}{
		{"file to a new name", "file", "new", nil, "new=x", ""},
		{"file into a directory", "file", "a", []string{"a/"}, "a/file=x", ""},
		{"file into a directory, with a slash", "file", "a/", []string{"a/"}, "a/file=x", ""},
		{"file over a file", "file", "a", []string{"a=old"}, "a=x", ""},
		{"file over a file of a directory", "file", "a", []string{"a/file=old"}, "a/file=x", ""},
		{"file to a directory that is made", "file", "a/b/", nil, "a/b/file=x", ""},
		{"file below what is made", "file", "a/b/c", nil, "a/b/c=x", ""},
		{"file in the way of itself, a directory", "file", "a", []string{"a/file/"}, "a/file/", "is a directory"},
		{"file to a file with a slash", "file", "a/", []string{"a=old"}, "a=old", "not a directory"},
		{"file below a file", "file", "a/b", []string{"a=old"}, "a=old", "not a directory"},
		{"file with a slash", "file/", "a", nil, "", "not a directory"},
		{"tree to a new name", "tree", "a", nil, "a/sub/leaf=x a/top=y", ""},
		{"tree below what is made", "tree", "a/b", nil, "a/b/sub/leaf=x a/b/top=y", ""},
		{"tree into a directory", "tree", "a", []string{"a/"}, "a/tree/sub/leaf=x a/tree/top=y", ""},
		{"tree into a directory that is made", "tree", "a/", nil, "a/tree/sub/leaf=x a/tree/top=y", ""},
		{"tree onto itself merges", "tree", "a", []string{"a/tree/sub/other=o", "a/tree/top=old"}, "a/tree/sub/leaf=x a/tree/sub/other=o a/tree/top=y", ""},
		{"tree over a file", "tree", "a", []string{"a=old"}, "a=old", "not a directory"},
		{"tree over a file of its name", "tree", "a", []string{"a/tree=old"}, "a/tree=old", "not a directory"},
		{"tree with a file in the way of a directory", "tree", "a", []string{"a/tree/sub=old"}, "a/tree/sub=old", "in the way"},
		{"tree with a directory in the way of a file", "tree", "a", []string{"a/tree/top/"}, "a/tree/sub/leaf=x a/tree/top/", "in the way"},
		{"content to a new name", "tree/", "a", nil, "a/sub/leaf=x a/top=y", ""},
		{"content to a new directory", "tree/", "a/", nil, "a/sub/leaf=x a/top=y", ""},
		{"content below what is made", "tree/.", "a/b/c/", nil, "a/b/c/sub/leaf=x a/b/c/top=y", ""},
		{"content merges", "tree/", "a/", []string{"a/sub/other=o"}, "a/sub/leaf=x a/sub/other=o a/top=y", ""},
		{"content merges without a slash", "tree/.", "a", []string{"a/old=o"}, "a/old=o a/sub/leaf=x a/top=y", ""},
		{"content, written as the parent of what is below", "tree/sub/..", "a", []string{"a/old=o"}, "a/old=o a/sub/leaf=x a/top=y", ""},
		{"content over a file", "tree/", "a", []string{"a=old"}, "a=old", "not a directory"},
		{"link to a tree", "link", "a", []string{"a/"}, "a/link/sub/leaf=x a/link/top=y", ""},
		{"content of a link to a tree", "link/", "a", nil, "a/sub/leaf=x a/top=y", ""},
		{"onto a link to a directory", "file", "l", []string{"a/", "l->a"}, "a/file=x l->a", ""},
		{"onto a link to a file", "file", "l", []string{"a=old", "l->a"}, "a=x l->a", ""},
		{"onto a link to nothing", "file", "l", []string{"l->none"}, "l->none", "link to a missing file"},
		{"file of its name is a link", "file", "d", []string{"a=old", "d/file->../a"}, "a=x d/file->../a", ""},
		{"tree of its name is a link", "tree", "d", []string{"a/", "d/tree->../a"}, "a/sub/leaf=x a/top=y d/tree->../a", ""},
		{"through a link to a directory within", "tree/", "d", []string{"d/sub->other", "d/other/"}, "d/other/leaf=x d/sub->other d/top=y", ""},
		{"through a link to a file within", "tree/", "d", []string{"d/top->sub/there", "d/sub/there=old"}, "d/sub/leaf=x d/sub/there=y d/top->sub/there", ""},
		{"through a link to nothing within", "tree/", "d", []string{"d/top->none"}, "d/sub/leaf=x d/top->none", "link to a missing file"},
		{"links as they are", "links/", "d", nil, "d/absolute->/etc d/dangling->none d/up->../file", ""},
		{"links over links and files", "links/", "d", []string{"d/absolute->/tmp", "d/up=old"}, "d/absolute->/etc d/dangling->none d/up->../file", ""},
		{"link over a directory", "links/", "d", []string{"d/up/"}, "d/absolute->/etc d/dangling->none d/up/", "in the way of a link"},
		{"strange names", "strange/", "d", nil, "d/ b= d/-rf= d/a\nb= d/c:d= d/empty/ d/\xff=", ""},
		{"strange name", "strange/-rf", "-d/", nil, "-d/-rf=", ""},
		{"what is not there", "none", "a", nil, "", "none"},
	}
	base := t.TempDir()
	build(t, base, "file=x", "tree/sub/leaf=x", "tree/top=y", "link->tree", "links/absolute->/etc", "links/dangling->none", "links/up->../file",
		"strange/ b=", "strange/-rf=", "strange/a\nb=", "strange/c:d=", "strange/empty/", "strange/\xff=")
	for _, trusted := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, trusted %v", tt.name, trusted), func(t *testing.T) {
				target := t.TempDir()
				build(t, target, tt.there...)
				if !trusted && strings.HasSuffix(tt.name, "of its name is a link") { // out of the destination
					tt.want, tt.wantErr = strings.Join(tt.there, " "), "it is a link out of"
				}
				copied, err := copyOver(t, base+"/"+tt.source, target+"/"+tt.destination, Options{Trusted: trusted})
				if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) || copied.Failed != 0 {
					t.Errorf("copy = %+v, %v, want %q", copied, err, tt.wantErr)
				}
				if got := listed(t, target); got != tt.want {
					t.Errorf("there is %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// Links out of a destination are followed for who is trusted, for nobody else.
func TestLinksOutOfTheDestination(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		for _, there := range []string{"d/sub->../out", "d/top->../out/file"} {
			base, target := t.TempDir(), t.TempDir()
			build(t, base, "tree/sub/leaf=x", "tree/top=y")
			build(t, target, "out/file=old", there)
			_, err := copyOver(t, base+"/tree/", target+"/d", Options{Trusted: trusted})
			if got := listed(t, target+"/out"); (got != "file=old") != trusted || (err == nil) != trusted {
				t.Errorf("trusted %v, %s: outside is %q, %v", trusted, there, got, err)
			}
		}
	}
}

// A link of the destination's that has the name of what is copied leads nowhere out of it:
// a guest that shares the directory may have put it there.
func TestTheNameIsNoLinkOut(t *testing.T) {
	for _, tt := range []struct {
		source string
		there  []string
		want   string // in the error; "": it is written
	}{
		{"tree", []string{"out/file=old", "d/tree->../out"}, "it is a link out of"},
		{"tree/", []string{"out/file=old", "d/tree->../out"}, ""}, // into d itself
		{"top", []string{"out/file=old", "d/top->../out/file"}, "it is a link out of"},
		{"top", []string{"out/file=old", "d/top->BASE/out/file"}, "it is a link out of"},
		{"top", []string{"out/file=old", "d/top->a", "d/a->../out/file"}, "it is a link out of"},
		{"top", []string{"out/file=old", "d/top->../out/new"}, "it is a link out of"},
		{"top", []string{"out/file=old", "d/top->none"}, "it is a link to a missing file"},
		{"top", []string{"out/file=old", "d/in=old", "d/top->in"}, ""},
		{"tree", []string{"out/file=old", "d/in/x=old", "d/tree->in"}, ""},
	} {
		base, target := t.TempDir(), t.TempDir()
		build(t, base, "tree/leaf=x", "top=y")
		for i := range tt.there {
			tt.there[i] = strings.ReplaceAll(tt.there[i], "BASE", target)
		}
		build(t, target, tt.there...)
		_, err := copyOver(t, base+"/"+tt.source, target+"/d", Options{})
		if got := listed(t, target+"/out"); got != "file=old" || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %q: outside is %q, %v, want %q", tt.source, tt.there, got, err, tt.want)
		}
	}
}

// What is there keeps its mode; -p gives it the source's.
func TestWhatIsThereKeepsItsMode(t *testing.T) {
	for _, preserve := range []bool{false, true} {
		for _, trusted := range []bool{false, true} {
			base, target := t.TempDir(), t.TempDir()
			build(t, base, "tree/sub/leaf=x", "tree/new=n")
			build(t, target, "tree/sub/leaf=old")
			for path, mode := range map[string]os.FileMode{base + "/tree": 0o700, base + "/tree/sub": 0o711, base + "/tree/sub/leaf": 0o600, base + "/tree/new": 0o606,
				target + "/tree": 0o751, target + "/tree/sub": 0o775, target + "/tree/sub/leaf": 0o464} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := copyOver(t, base+"/tree", target, Options{Preserve: preserve, Trusted: trusted}); err != nil {
				t.Fatal(err)
			}
			want := map[string]os.FileMode{"tree": 0o751, "tree/sub": 0o775, "tree/sub/leaf": 0o464, "tree/new": 0o604}
			if trusted {
				want["tree/new"] = 0o606 // no umask
			}
			if preserve {
				want = map[string]os.FileMode{"tree": 0o700, "tree/sub": 0o711, "tree/sub/leaf": 0o600, "tree/new": 0o606}
			}
			for name, mode := range want {
				if info, err := os.Stat(filepath.Join(target, name)); err != nil || info.Mode().Perm() != mode {
					t.Errorf("preserve %v, trusted %v: %s has mode %v, %v, want %v", preserve, trusted, name, info.Mode(), err, mode)
				}
			}
		}
	}
}

// Who owns what is there goes on to own it; what is new belongs to who receives,
// unless -p is given.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	base, target := t.TempDir(), t.TempDir()
	build(t, base, "tree/old=x", "tree/new=n")
	build(t, target, "tree/old=old")
	for path, id := range map[string]int{base + "/tree/old": 5, base + "/tree/new": 6, target + "/tree/old": 7} {
		if err := os.Chown(path, id, id); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		o        Options
		old, new uint32
	}{{Options{}, 7, 0}, {Options{Trusted: true, Owner: &Owner{8, 8}}, 7, 8}, {Options{Preserve: true}, 5, 6}} {
		_ = os.Remove(target + "/tree/new")
		if _, err := copyOver(t, base+"/tree", target, tt.o); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint32{"old": tt.old, "new": tt.new} {
			info, err := os.Stat(target + "/tree/" + name)
			if err != nil || info.Sys().(*syscall.Stat_t).Uid != want {
				t.Errorf("%+v: %s belongs to %d, %v, want %d", tt.o, name, info.Sys().(*syscall.Stat_t).Uid, err, want)
			}
		}
	}
}

// Devices and FIFOs are written to, alone and within a tree.
func TestWritesThroughDevicesAndFIFOs(t *testing.T) {
	base, target := t.TempDir(), t.TempDir()
	build(t, base, "f=through", "tree/f=through")
	build(t, target, "tree/")
	for _, fifo := range []string{"fifo", "tree/f"} {
		path := filepath.Join(target, fifo)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			b, err := os.ReadFile(path)
			got <- fmt.Sprint(string(b), err)
		}()
		source, destination := "/f", path
		if fifo == "tree/f" {
			source, destination = "/tree/", target+"/tree"
		}
		if _, err := copyOver(t, base+source, destination, Options{}); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != "through<nil>" {
			t.Errorf("through %s came %q", fifo, s)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s is %v, %v", fifo, info.Mode(), err)
		}
	}
	if _, err := copyOver(t, base+"/f", "/dev/null", Options{}); err != nil {
		t.Error(err)
	}
	if _, err := copyOver(t, base+"/f", "/dev/full", Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("to /dev/full: %v", err)
	}
}

// Nobody at the other end of a FIFO is no reason to wait for ever, on either side.
func TestNobodyAtTheFIFO(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	build(t, dir, "f=x")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := Receive(ctx, protocol.NewReader((&stream{}).file("f", "x").end()), fifo, Options{Name: "f"})
			return err
		},
		func(ctx context.Context) error {
			_, err := Send(ctx, io.Discard, fifo, SendOptions{Devices: true})
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- do(ctx) }()
		cancel(stop)
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("error %v", err)
		}
	}
}

// Destinations that cannot be are found before there is anything to receive.
func TestCheckDestination(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, "file=x", "d/", "l->none")
	for destination, want := range map[string]string{
		"new": "", "new/": "", "a/b/c": "", "d": "", "d/": "", "file": "", "d/../x": "",
		"file/": "not a directory", "file/x": "not a directory", "l": "a missing file", "l/x": "a missing file", "file/x/y/z": "not a directory",
	} {
		err := CheckDestination(dir + "/" + destination)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", destination, err, want)
		}
	}
	if got := listed(t, dir); got != "d/ file=x l->none" {
		t.Errorf("the check made something: %q", got)
	}
}

// then is a reader of nothing that does something first.
type then func()

func (do then) Read([]byte) (int, error) { do(); return 0, io.EOF }

// A file system may take two names for one, as a Mac's takes "A" and "a". The
// second is refused: a link and what is then written through it may hide there.
func TestNamesThatAreTheSameToTheFileSystem(t *testing.T) {
	for _, there := range []bool{false, true} {
		for name, first := range map[string]*stream{"link": (&stream{}).dir("d").link("a", "../canary"), "file": (&stream{}).dir("d").file("a", "x")} {
			for again, second := range map[string]*stream{"file": (&stream{}).file("b", "evil").end(), "directory": (&stream{}).dir("b").file("b/x", "evil").end(), "link": (&stream{}).link("b", "x").end()} {
				destination, untouched := arena(t)
				d := filepath.Join(destination, "d")
				if there {
					build(t, destination, "d/old=o")
				}
				alias := then(func() {
					if err := os.Link(d+"/a", d+"/b"); err != nil {
						t.Fatal(err)
					}
				})
				_, err := Receive(t.Context(), protocol.NewReader(io.MultiReader(first, alias, second)), destination, Options{Name: "d"})
				if err == nil || !untouched() || len(temporaries(destination)) != 0 {
					t.Errorf("%s, then %s of the same name, %v: %v", name, again, there, err)
				}
				if info, err := os.Lstat(d + "/b"); err != nil || (info.Mode()&os.ModeSymlink != 0) != (name == "link") {
					t.Errorf("%s, then %s: replaced by %v, %v", name, again, info, err)
				}
				first = &stream{}
				if name == "link" {
					first.dir("d").link("a", "../canary")
				} else {
					first.dir("d").file("a", "x")
				}
			}
		}
	}
}

// A file that cannot be made is told by its own name, not by the temporary one
// that nobody has asked for.
func TestWhatCannotBeMadeIsNamed(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("needs /proc")
	}
	base := t.TempDir()
	build(t, base, "file=x", "tree/inner=x")
	for source, destination := range map[string]string{"/file": "/proc/none", "/tree/": "/proc"} {
		_, err := copyOver(t, base+source, destination, Options{})
		want := map[string]string{"/file": "/proc/none", "/tree/": "inner"}[source]
		if err == nil || !strings.Contains(err.Error(), want+": no such file") || strings.Contains(err.Error(), ".lumina-") {
			t.Errorf("%s to %s: %v, want one that names %s", source, destination, err, want)
		}
	}
}
