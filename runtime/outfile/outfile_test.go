package outfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	tests := []struct {
		name, path string
		wantErr    string
		read       string // where it is then
		mode       os.FileMode
	}{
		{"a new file", "new", "", "new", 0o600},
		{"a file of directories that are made", "a/b/new", "", "a/b/new", 0o600},
		{"over a file", "old", "", "old", 0o640},
		{"through a link", "link", "", "old", 0o640},
		{"through a link to a directory", "dirlink/new", "", "dir/new", 0o600},
		{"a directory", "dir", "is a directory", "", 0},
		{"a directory that is not there", "none/", "is a directory", "", 0},
		{"a link to a directory", "dirlink", "is a directory", "", 0},
		{"a link to nothing", "dangling", "a link to a missing file", "", 0},
		{"below a file", "old/x", "not a directory", "", 0},
		{"below a file, deeper", "old/x/y", "not a directory", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, err := range []error{os.WriteFile(dir+"/old", []byte("old"), 0o640), os.Symlink("old", dir+"/link"), os.Mkdir(dir+"/dir", 0o755),
				os.Symlink("dir", dir+"/dirlink"), os.Symlink("none", dir+"/dangling")} {
				if err != nil {
					t.Fatal(err)
				}
			}
			_, checkErr := Check(dir + "/" + tt.path)
			before, _ := filepath.Glob(dir + "/*")
			if len(before) != 5 {
				t.Errorf("the check made something: %v", before)
			}
			err := Write(dir+"/"+tt.path, []byte("content"), 0o600)
			if (err == nil) != (tt.wantErr == "") || (checkErr == nil) != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("Check() = %v, Write() = %v, want %q", checkErr, err, tt.wantErr)
			}
			if err == nil {
				b, err := os.ReadFile(dir + "/" + tt.read)
				info, _ := os.Stat(dir + "/" + tt.read)
				if string(b) != "content" || info.Mode() != tt.mode {
					t.Errorf("%s is %q, %v, mode %v", tt.read, b, err, info.Mode())
				}
			}
			if link, err := os.Lstat(dir + "/link"); err != nil || link.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link is %v, %v", link, err)
			}
		})
	}
}

func TestWriteThroughAFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() {
		b, _ := os.ReadFile(fifo)
		got <- string(b)
	}()
	if err := Write(fifo, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "content" {
		t.Errorf("the reader got %q", s)
	}
	if err := Write("/dev/full", []byte("content"), 0o600); err == nil {
		t.Error("a device that is full took it")
	}
}
