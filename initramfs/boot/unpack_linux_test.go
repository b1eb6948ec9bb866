package boot

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func tarOf(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "of " + h.Name
		}
		h.Size, h.Format = int64(len(content)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// An archive of the host's is unpacked with all that it says of its files.
func TestUnpack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	at := time.Unix(981173106, 5)
	if err := os.WriteFile(filepath.Join(dir, "was-file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "was-dir/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	archive := tarOf(t,
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1770, Uid: 5, Gid: 70000, ModTime: at},
		tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 70000, Gid: 6, ModTime: at},
		tar.Header{Name: "d/same", Typeflag: tar.TypeLink, Linkname: "d/f"},
		tar.Header{Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "../none", Uid: 7, Gid: 8, ModTime: at},
		tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: at},
		tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: at},
		tar.Header{Name: "was-file/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at},
		tar.Header{Name: "was-dir", Typeflag: tar.TypeReg, Mode: 0o644, ModTime: at})
	if err := unpack(root, archive); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		got = append(got, fmt.Sprintf("%s %o %d:%d %d %v", strings.TrimPrefix(name, dir+"/"), st.Mode, st.Uid, st.Gid, st.Rdev, info.ModTime().Equal(at)))
		return nil
	})
	want := []string{"d 41770 5:70000 0 true", "d/f 104755 70000:6 0 true", "d/fifo 10600 0:0 0 true", "d/link 120777 7:8 0 true", "d/null 20666 0:0 259 true",
		"d/same 104755 70000:6 0 true", "was-dir 100644 0:0 0 true", "was-file 40755 0:0 0 true"}
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it has\n%s\nwant\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), err)
	}
}

// No name and no link of an archive leads out of where it is unpacked.
func FuzzUnpack(f *testing.F) {
	for _, entries := range [][]tar.Header{
		{{Name: "../out", Typeflag: tar.TypeReg}},
		{{Name: "/abs", Typeflag: tar.TypeReg}},
		{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/out", Typeflag: tar.TypeReg}},
		{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "l/", Typeflag: tar.TypeDir}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/out"}},
		{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../there"}},
	} {
		f.Add(tarOf(f, entries...).Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "there"), []byte("as it was"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "in"), 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(dir, "in"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = unpack(root, bytes.NewReader(archive))
		entries, err := os.ReadDir(dir)
		b, readErr := os.ReadFile(filepath.Join(dir, "there"))
		info, statErr := os.Stat(filepath.Join(dir, "there"))
		if err != nil || readErr != nil || statErr != nil || len(entries) != 2 || string(b) != "as it was" || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Fatalf("outside there is %v, %q, %v", entries, b, info)
		}
	})
}
