package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/releasetest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// open returns an image whose root is of several parts of 100 KB.
func open(t testing.TB) *image.Handle {
	t.Helper()
	return openSize(t, 300_000)
}

func openSize(t testing.TB, size int) *image.Handle {
	t.Helper()
	store := image.NewStore(filepath.Join(t.TempDir(), "images"))
	releasetest.Install(t, store, "test", "amd64", map[string]string{"noise": string(releasetest.Noise(size, 3))})
	h, err := store.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func packed(t testing.TB, h *image.Handle, partSize int64) (catalog.Image, []byte) {
	t.Helper()
	dir := t.TempDir()
	entry, err := Pack(t.Context(), h, Options{Dir: dir, Name: "default", PartSize: partSize})
	if err != nil {
		t.Fatal(err)
	}
	var archive []byte
	for _, p := range entry.Parts {
		b, err := os.ReadFile(filepath.Join(dir, p.Name))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) != p.Size {
			t.Errorf("%s has %d bytes, its entry says %d", p.Name, len(b), p.Size)
		}
		archive = append(archive, b...)
	}
	if names, _ := os.ReadDir(dir); len(names) != len(entry.Parts) {
		t.Errorf("%d files of %d parts", len(names), len(entry.Parts))
	}
	return entry, archive
}

func TestRoundTrip(t *testing.T) {
	h := open(t)
	for _, partSize := range []int64{0, 100_000} {
		entry, archive := packed(t, h, partSize)
		var names []string
		for _, p := range entry.Parts {
			names = append(names, p.Name)
			if partSize != 0 && p.Size > partSize {
				t.Errorf("%s has %d bytes", p.Name, p.Size)
			}
		}
		want := []string{"default-amd64.tar.zst"}
		if partSize != 0 {
			want = []string{"default-amd64.tar.zst.001", "default-amd64.tar.zst.002", "default-amd64.tar.zst.003", "default-amd64.tar.zst.004"}
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("parts (-want +got)\n%s", diff)
		}
		dir := t.TempDir()
		if err := Unpack(t.Context(), bytes.NewReader(archive), dir, &entry, nil); err != nil {
			t.Fatal(err)
		}
		for _, name := range catalog.Files() {
			want, err := os.ReadFile(h.Path(name))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s differs: %v", name, err)
			}
		}
	}
}

func TestSameImageSameBytes(t *testing.T) {
	h := open(t)
	entry, want := packed(t, h, 0)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	again, got := packed(t, h, 0)
	if !bytes.Equal(got, want) {
		t.Error("packing twice gives different bytes")
	}
	if diff := cmp.Diff(entry, again); diff != "" {
		t.Errorf("(-first +second)\n%s", diff)
	}
}

func TestChangedImageIsNotPacked(t *testing.T) {
	h := open(t)
	b, err := os.ReadFile(h.Path(image.Kernel))
	if err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if err := os.WriteFile(h.Path(image.Kernel), b, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = Pack(t.Context(), h, Options{Dir: dir, Name: "default"})
	if !errors.Is(err, image.ErrInvalid) || !strings.Contains(err.Error(), "kernel was modified after the image was made") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it leaves %v", left)
	}
}

func TestInterrupted(t *testing.T) {
	h := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Pack(ctx, h, Options{Dir: dir, Name: "default"}); !errors.Is(err, context.Canceled) {
		t.Errorf("packing: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("packing leaves %v", left)
	}
	entry, archive := packed(t, h, 0)
	if err := Unpack(ctx, bytes.NewReader(archive), t.TempDir(), &entry, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("unpacking: %v", err)
	}
}

// member is an entry of a tar that somebody else wrote.
type member struct {
	tar.Header
	data []byte
}

func archiveOf(t testing.TB, members []member, trailer []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, m := range members {
		if m.Size == 0 {
			m.Size = int64(len(m.data))
		}
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(trailer); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileArchives(t *testing.T) {
	h := open(t)
	entry, good := packed(t, h, 0)
	var members []member
	for _, name := range catalog.Files() {
		b, err := os.ReadFile(h.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{tar.Header{Name: name, Typeflag: tar.TypeReg}, b})
	}
	changed := func(f func(m []member) []member) []byte {
		return archiveOf(t, f(append([]member(nil), members...)), nil)
	}
	wide, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		archive []byte
		want    string
	}{
		{"good", changed(func(m []member) []member { return m }), ""},
		{"another order", changed(func(m []member) []member { m[0], m[1] = m[1], m[0]; return m }), `it has "kernel"`},
		{"a missing file", changed(func(m []member) []member { return m[:3] }), "rootfs.erofs is missing"},
		{"a further file", changed(func(m []member) []member { return append(m, member{tar.Header{Name: "x"}, nil}) }), `a further file, "x"`},
		{"a path upwards", changed(func(m []member) []member { m[0].Name = "../image.json"; return m }), `it has "../image.json"`},
		{"an absolute path", changed(func(m []member) []member { m[0].Name = "/image.json"; return m }), `it has "/image.json"`},
		{"a symbolic link", changed(func(m []member) []member {
			m[0] = member{tar.Header{Name: "image.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, nil}
			return m
		}), "of type '2'"},
		{"a hard link", changed(func(m []member) []member {
			m[1] = member{tar.Header{Name: "kernel", Typeflag: tar.TypeLink, Linkname: "image.json"}, nil}
			return m
		}), "of type '1'"},
		{"a longer file", changed(func(m []member) []member { m[1].data = append(m[1].data[:len(m[1].data):len(m[1].data)], 0); return m }), "20001 bytes in place of kernel"},
		{"other content", changed(func(m []member) []member { m[1].data = make([]byte, len(m[1].data)); return m }), "another digest"},
		{"something behind", archiveOf(t, members, []byte{1}), "follow its end"},
		{"much behind", archiveOf(t, members, make([]byte, 1<<20)), "follow its end"},
		{"a second frame", append(good[:len(good):len(good)], archiveOf(t, members, nil)...), "follow its end"},
		{"cut off", good[:len(good)-1], "unexpected EOF"},
		{"cut off in the middle", good[:len(good)/2], "unexpected EOF"},
		{"nothing", nil, "image.json is missing"},
		{"not zstd", []byte("PK\x03\x04 and so on"), "magic"},
		{"a window that takes memory", wide.EncodeAll(make([]byte, 65<<20), nil), "window"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "image")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			err := Unpack(t.Context(), bytes.NewReader(tt.archive), dir, &entry, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			onlyKnown(t, dir, &entry)
		})
	}
}

// onlyKnown fails the test when an archive wrote anything but its files, or
// more of them than the catalog says.
func onlyKnown(t *testing.T, dir string, entry *catalog.Image) {
	t.Helper()
	err := filepath.Walk(filepath.Dir(dir), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		want, ok := entry.Files[info.Name()]
		if !ok || filepath.Dir(path) != dir || info.Size() > want.Size || !info.Mode().IsRegular() {
			t.Errorf("it wrote %s, %d bytes, %v", path, info.Size(), info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	h := openSize(f, 100)
	entry, good := packed(f, h, 0)
	f.Add(good)
	z, err := zstd.NewReader(bytes.NewReader(good))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain[:2048])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, archive := range [][]byte{b, e.EncodeAll(b, nil)} {
			dir := filepath.Join(t.TempDir(), "image")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			err := Unpack(t.Context(), bytes.NewReader(archive), dir, &entry, nil)
			if err == nil {
				for name, want := range entry.Files {
					if got, err := image.Digest(t.Context(), filepath.Join(dir, name)); err != nil || got != want {
						t.Errorf("%s: %v, %v", name, got, err)
					}
				}
			}
			onlyKnown(t, dir, &entry)
		}
	})
}
