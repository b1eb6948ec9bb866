package transfer

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// An error names the path that was asked for, once, and nothing that is only this
// package's.
func TestErrorsNameThePath(t *testing.T) {
	base := t.TempDir()
	build(t, base, "file=x", "tree/f=x", "tree/sub/g=y", "tree2/a=1", "tree2/f=2", "big="+strings.Repeat("x", 100<<10), "bigs/b="+strings.Repeat("x", 100<<10),
		"there/dir/", "there/f/x=1", "there/link->nowhere", "there/tree/f->nowhere", "through->there", "full/")
	isFull := false // for whoever may not mount, no file system is
	if err := syscall.Mount("none", base+"/full", "tmpfs", 0, "size=16k"); err != nil {
		t.Logf("no full file system: %v", err)
	} else {
		isFull = true
		t.Cleanup(func() { _ = syscall.Unmount(base+"/full", 0) })
	}
	long := strings.Repeat("n", 300)
	tests := []struct{ source, destination, want string }{
		{"file", "/proc/y", "/proc/y: no such file or directory"},
		{"tree", "/proc/y", "/proc/y: no such file or directory"},
		{"tree", "/proc/y/", "/proc/y: no such file or directory"},
		{"tree", "/proc/x/y", "/proc/x: no such file or directory"},
		{"tree/", "/proc", "/proc/f: no such file or directory"},
		{"tree", "/proc/self/fdinfo", "/proc/self/fdinfo/tree: no such file or directory"},
		{"file", "there", ""},
		{"tree/f", "there/", "BASE/there/f: it is a directory, but the source is not"},
		{"tree/f", "through", "BASE/through/f: it is a directory, but the source is not"},
		{"tree/", "there", "BASE/there/f: a directory is in the way of a file"},
		{"tree2/", "through", "BASE/through/f: a directory is in the way of a file; one file was copied before"},
		{"tree", "there", "BASE/there/tree/f: a link to a missing file is in the way"},
		{"file", "there/link", "BASE/there/link: it is a link to a missing file"},
		{"tree", "file", "BASE/file: it is not a directory, but the source is one"},
		{"file", "file/", "BASE/file/: not a directory"},
		{"file", "file/x", "BASE/file/x: not a directory"},
		{"tree/", "file/x/y", "BASE/file/x/y: not a directory"},
		{"file", "there/" + long, "BASE/there/" + long[:200]},
		{"file", "/dev/full", "/dev/full: no space left on device"},
		{"big", "full/x", "BASE/full/x: no space left on device"},
		{"big", "full", "BASE/full/big: no space left on device"},
		{"bigs", "full", "BASE/full/bigs/b: no space left on device"},
		{"none", "x", "BASE/none: no such file or directory"},
		{"file/", "x", "BASE/file/: not a directory"},
		{"file/x", "x", "BASE/file/x: not a directory"},
		{"there/link", "x", "BASE/there/link: no such file or directory"},
		{"/proc/self/mem", "x", "/proc/self/mem: input/output error"},
		{"/proc/self/pagemap", "x", "/proc/self/pagemap: it has more than 16 MiB"},
	}
	at := func(p string) string {
		if strings.HasPrefix(p, "/") {
			return p
		}
		return base + "/" + p
	}
	for _, tt := range tests {
		if !isFull && strings.HasPrefix(tt.destination, "full") {
			continue
		}
		for _, trusted := range []bool{false, true} {
			_, err := copyOver(t, at(tt.source), at(tt.destination), Options{Trusted: trusted, MaxSize: 1 << 30})
			if tt.want == "" {
				if err != nil {
					t.Errorf("%s to %s: %v", tt.source, tt.destination, err)
				}
				continue
			}
			want := strings.ReplaceAll(tt.want, "BASE", base)
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), ".lumina-") > 0 || strings.Count(err.Error(), base) > 1 {
				t.Errorf("%s to %s (trusted %v): %v, want %s", tt.source, tt.destination, trusted, err, want)
			}
		}
	}
	if _, err := copyOver(t, base+"/big", base+"/full/x", Options{}); isFull && (err == nil || !strings.Contains(err.Error(), "/full/x: larger than allowed: more than half of what is free there")) {
		t.Errorf("to a disk that is nearly full: %v", err)
	}
	if _, err := Send(t.Context(), io.Discard, base+"/none", SendOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	for path, want := range map[string]string{base + "/file/": "not a directory", base + "/none": "no such file", base + "/file/x": "not a directory"} {
		if err := Check(path, SendOptions{}); err == nil || !strings.HasPrefix(err.Error(), path+": "+want) {
			t.Errorf("Check(%s): %v", path, err)
		}
	}
	for path, want := range map[string]string{base + "/file/": base + "/file/: not a directory", base + "/there/link": base + "/there/link: it is a link", base + "/file/x/y": base + "/file/x"} {
		if err := CheckDestination(path); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("CheckDestination(%s): %v, want %s", path, err, want)
		}
	}
}
