package transfer

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// stream builds what a sender, honest or not, may send.
type stream struct{ bytes.Buffer }

func (s *stream) frame(t protocol.FrameType, payload []byte) *stream {
	_ = protocol.NewWriter(s).Data(t, append(make([]byte, protocol.HeaderSize), payload...))
	return s
}

func (s *stream) entry(e entry) *stream {
	if e.mtime.IsZero() {
		e.mtime = time.Unix(1, 0)
	}
	b, err := e.encode()
	if err != nil {
		panic(err)
	}
	return s.frame(protocol.FrameEntry, b[protocol.HeaderSize:])
}

func (s *stream) dir(name string) *stream {
	return s.entry(entry{kind: kindDir, mode: 0o755, name: name})
}
func (s *stream) link(name, target string) *stream {
	return s.entry(entry{kind: kindLink, name: name, target: target})
}
func (s *stream) file(name, content string) *stream {
	s.entry(entry{kind: kindFile, mode: 0o644, name: name, size: int64(len(content))})
	if content == "" {
		return s
	}
	return s.frame(protocol.FrameChunk, []byte(content))
}
func (s *stream) end() *stream { return s.frame(protocol.FrameEnd, []byte("{}")) }

// raw is an entry whose name the encoder would not refuse but a receiver must.
func (s *stream) raw(kind byte, size uint64, name, target string) *stream {
	b := append([]byte{kind}, make([]byte, 16)...)
	b = binary.BigEndian.AppendUint64(b, size)
	for _, v := range []string{name, target} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	return s.frame(protocol.FrameEntry, b)
}

// arena is a destination among things that must not be touched.
func arena(t testing.TB) (destination string, untouched func() bool) {
	t.Helper()
	base := t.TempDir()
	destination = filepath.Join(base, "destination")
	canary := filepath.Join(base, "canary")
	for _, err := range []error{os.Mkdir(destination, 0o755), os.Mkdir(canary, 0o755), os.WriteFile(filepath.Join(canary, "file"), []byte("alive"), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return destination, func() bool {
		outside, _ := os.ReadDir(base)
		inside, _ := os.ReadDir(canary)
		b, _ := os.ReadFile(filepath.Join(canary, "file"))
		return len(outside) == 2 && len(inside) == 1 && string(b) == "alive"
	}
}

// temporaries lists files under temporary names.
func temporaries(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(filepath.Base(path), ".lumina-") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func TestHostileSenders(t *testing.T) {
	s := func() *stream { return &stream{} }
	tests := []struct {
		name string
		sent *stream
	}{
		{"dots as the first name", s().raw(kindDir, 0, "..", "").end()},
		{"path as the first name", s().dir("a/b").end()},
		{"link as the first entry", s().link("l", "/etc").end()},
		{"name that leads out", s().dir("d").raw(kindFile, 0, "../../canary/x", "").end()},
		{"name that leads out on the way", s().dir("d").raw(kindFile, 0, "a/../../../canary/x", "").end()},
		{"absolute name", s().dir("d").raw(kindFile, 0, "/tmp/x", "").end()},
		{"empty name", s().dir("d").raw(kindFile, 0, "", "").end()},
		{"name with a zero byte", s().dir("d").raw(kindFile, 0, "a\x00b", "").end()},
		{"write through a link", s().dir("d").link("l", "../../canary").file("l/x", "evil").end()},
		{"write through an absolute link", s().dir("d").link("l", "/tmp").file("l/x", "evil").end()},
		{"write through a chain of links", s().dir("d").link("a", "b").link("b", "../../canary").file("a/x", "evil").end()},
		{"directory in place of a link", s().dir("d").link("l", "../../canary").dir("l").end()},
		{"file below a file", s().dir("d").file("f", "x").file("f/g", "y").end()},
		{"file below what was never sent", s().dir("d").file("missing/g", "y").end()},
		{"files below a file", s().file("f", "x").file("g", "y").end()},
		{"device", s().dir("d").raw('b', 0, "sda", "").end()},
		{"more data than the size", s().dir("d").entry(entry{kind: kindFile, name: "f", size: 1}).frame(protocol.FrameChunk, []byte("xx")).end()},
		{"less data than the size", s().dir("d").entry(entry{kind: kindFile, name: "f", size: 3}).frame(protocol.FrameChunk, []byte("xx")).end()},
		{"data of no file", s().dir("d").frame(protocol.FrameChunk, []byte("xx")).end()},
		{"hole larger than the file", s().dir("d").entry(entry{kind: kindFile, name: "f", size: 3}).frame(protocol.FrameHole, binary.BigEndian.AppendUint64(nil, 1<<63)).end()},
		{"hole of nothing", s().dir("d").entry(entry{kind: kindFile, name: "f", size: 3}).frame(protocol.FrameHole, make([]byte, 8)).end()},
		{"impossible size", s().dir("d").raw(kindFile, 1<<63, "f", "").end()},
		{"directory with a size", s().raw(kindDir, 5, "d", "").end()},
		{"cut off in a file", s().dir("d").entry(entry{kind: kindFile, name: "f", size: 3}).frame(protocol.FrameChunk, []byte("x"))},
		{"cut off between files", s().dir("d").file("whole", "x")},
		{"nothing", s()},
		{"error in place of a file", s().frame(protocol.FrameError, []byte(`{"code":"failed","message":"no"}`))},
		{"unknown frame", s().frame(protocol.FrameExit, []byte("{}"))},
		{"too many files", s().dir("d").file("1", "").file("2", "").file("3", "").file("4", "").end()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			destination, untouched := arena(t)
			if _, err := Receive(protocol.NewReader(tt.sent), destination, Options{MaxEntries: 4}); err == nil {
				t.Error("Receive() = nil error")
			}
			if !untouched() {
				t.Error("something outside of the destination changed")
			}
			if left := temporaries(destination); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// What a link in place of a directory leads to keeps its mode and time.
func TestLinkInPlaceOfADirectoryIsNotFollowedOut(t *testing.T) {
	destination, untouched := arena(t)
	canary := filepath.Join(filepath.Dir(destination), "canary")
	before, _ := os.Stat(canary)
	s := (&stream{}).dir("d").dir("sub").link("sub2", "x")
	// The directory is exchanged for a link before its mode is set.
	s.raw(kindLink, 0, "sub", "../../canary").end()
	_, _ = Receive(protocol.NewReader(s), destination, Options{})
	after, _ := os.Stat(canary)
	if !untouched() || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the directory outside is %v, %v; was %v, %v", after.Mode(), after.ModTime(), before.Mode(), before.ModTime())
	}
}

func TestSetuidStaysInTheGuest(t *testing.T) {
	for _, keep := range []bool{false, true} {
		destination, _ := arena(t)
		s := (&stream{}).entry(entry{kind: kindFile, mode: 0o6755, name: "tool"}).end()
		if _, err := Receive(protocol.NewReader(s), destination, Options{SpecialBits: keep}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(destination, "tool"))
		if err != nil || (info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0) != keep {
			t.Errorf("keep %v: mode %v, %v", keep, info.Mode(), err)
		}
	}
}

func copyOver(t *testing.T, source, destination string, o Options) error {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		_, err := Send(w, source, nil)
		w.CloseWithError(err)
	}()
	_, err := Receive(protocol.NewReader(r), destination, o)
	r.Close()
	return err
}

// The destinations of cp -r.
func TestDestinations(t *testing.T) {
	base := t.TempDir()
	write := func(name string) {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
	write("tree/sub/leaf")
	if err := os.Symlink("tree", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, source, destination string
		makeParents               bool
		want                      string // a file that must be there; "" for an error
	}{
		{"file to a new name", "file", "new", false, "new"},
		{"file into a directory", "file", "exists", false, "exists/file"},
		{"file over a file", "file", "exists/old", false, "exists/old"},
		{"file to a directory that is not there", "file", "none/", false, ""},
		{"file to a directory that is made", "file", "none/", true, "none/file"},
		{"file below what is not there", "file", "none/new", false, ""},
		{"file below what is made", "file", "none/new", true, "none/new"},
		{"tree to a new name", "tree", "new", false, "new/sub/leaf"},
		{"tree into a directory", "tree", "exists", false, "exists/tree/sub/leaf"},
		{"tree over a file", "tree", "exists/old", false, ""},
		{"link to a tree", "link", "exists", false, "exists/link/sub/leaf"},
		{"the tree itself by its dot", "tree/.", "new", false, "new/sub/leaf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			target := t.TempDir()
			if err := os.Mkdir(filepath.Join(target, "exists"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(target, "exists/old"), []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			destination := target + "/" + tt.destination
			err := copyOver(t, base+"/"+tt.source, destination, Options{MakeParents: tt.makeParents})
			if (err == nil) != (tt.want != "") {
				t.Fatalf("copy = %v, want %q", err, tt.want)
			}
			if tt.want != "" {
				if b, err := os.ReadFile(filepath.Join(target, tt.want)); err != nil || string(b) != "x" {
					t.Errorf("%s = %q, %v", tt.want, b, err)
				}
			}
		})
	}
}

func TestEntryRoundTrip(t *testing.T) {
	want := entry{kind: kindFile, mode: 0o4755, mtime: time.Unix(-5, 999999999), size: 1 << 40, name: "a b/c\nd\xff"}
	b, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	var got entry
	if err := decode(b[protocol.HeaderSize:], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("entry differs:\n%s", diff)
	}
}

// FuzzReceive gives a receiver any stream: nothing outside of its destination
// may change, and no temporary file may stay.
func FuzzReceive(f *testing.F) {
	f.Add((&stream{}).dir("d").link("l", "../../canary").file("l/x", "evil").end().Bytes())
	f.Add((&stream{}).dir("d").dir("e").file("e/f", "x").link("e/l", "f").end().Bytes())
	f.Add((&stream{}).file("f", "x").end().Bytes())
	f.Add((&stream{}).dir("d").raw(kindFile, 1<<40, "f", "").frame(protocol.FrameHole, binary.BigEndian.AppendUint64(nil, 1<<40)).end().Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		destination, untouched := arena(t)
		_, _ = Receive(protocol.NewReader(bytes.NewReader(data)), destination, Options{MaxEntries: 100})
		if !untouched() {
			t.Error("something outside of the destination changed")
		}
		if left := temporaries(destination); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}
