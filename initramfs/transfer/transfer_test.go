package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	return s.entry(entry{kind: kindFile, mode: 0o644, name: name}).data(content)
}
func (s *stream) data(content string) *stream {
	if content != "" {
		s.frame(protocol.FrameChunk, []byte(content))
	}
	return s.frame(protocol.FrameChunk, nil)
}
func (s *stream) hardLink(name, target string) *stream {
	return s.entry(entry{kind: kindHardLink, name: name, target: target})
}
func (s *stream) hole(n uint64) *stream {
	return s.frame(protocol.FrameHole, binary.BigEndian.AppendUint64(nil, n))
}
func (s *stream) end() *stream { return s.frame(protocol.FrameEnd, []byte("{}")) }

// raw is an entry whose name the encoder would not refuse but a receiver must.
func (s *stream) raw(kind byte, name, target string) *stream {
	b := append([]byte{kind}, make([]byte, entryFixed-1)...)
	for _, v := range []string{name, target} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	return s.frame(protocol.FrameEntry, b)
}

func receive(s *stream, destination string, o Options) (protocol.Copied, error) {
	return Receive(context.Background(), protocol.NewReader(s), destination, o)
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
	open := func() *stream { return s().dir("d").entry(entry{kind: kindFile, name: "f"}) }
	tests := []struct {
		name string
		sent *stream
	}{
		{"dots as the first name", s().raw(kindDir, "..", "").end()},
		{"dot as the first name", s().raw(kindDir, ".", "").end()},
		{"no first name", s().raw(kindFile, "", "").data("evil").end()},
		{"absolute first name", s().raw(kindFile, "/tmp/lumina-evil", "").data("evil").end()},
		{"first name with a zero byte", s().raw(kindFile, "d\x00", "").data("evil").end()},
		{"path as the first name", s().dir("a/b").end()},
		{"path that ends in the name", s().dir("x/d").end()},
		{"path that begins with the name", s().file("d/x", "evil").end()},
		{"another file than was asked for", s().file(".bashrc", "evil").end()},
		{"another directory than was asked for", s().dir(".git").dir("hooks").file("hooks/post-checkout", "evil").end()},
		{"the name in other letters", s().file("D", "evil").end()},
		{"the name with a space", s().file("d ", "evil").end()},
		{"link as the first entry", s().link("d", "/etc").end()},
		{"hard link as the first entry", s().hardLink("d", "d").end()},
		{"second first entry", s().dir("d").dir("d").file("d/x", "evil").dir("d").end()},
		{"name that leads out", s().dir("d").raw(kindFile, "../../canary/x", "").end()},
		{"name that leads out on the way", s().dir("d").raw(kindFile, "a/../../../canary/x", "").end()},
		{"absolute name", s().dir("d").raw(kindFile, "/tmp/x", "").end()},
		{"empty name", s().dir("d").raw(kindFile, "", "").end()},
		{"name with a zero byte", s().dir("d").raw(kindFile, "a\x00b", "").end()},
		{"write through a link", s().dir("d").link("l", "../../canary").file("l/x", "evil").end()},
		{"write through a link, by its own name", s().dir("d").link("l", "../../canary/file").file("l", "evil").end()},
		{"write through an absolute link", s().dir("d").link("l", "/tmp").file("l/x", "evil").end()},
		{"write through a chain of links", s().dir("d").link("a", "b").link("b", "../../canary").file("a/x", "evil").end()},
		{"write through a link within", s().dir("d").dir("a").link("l", "a").file("l/x", "evil").end()},
		{"directory in place of a link", s().dir("d").link("l", "../../canary").dir("l").end()},
		{"link in place of a directory", s().dir("d").dir("l").link("l", "../../canary").end()},
		{"file in place of a file", s().dir("d").file("f", "x").file("f", "y").end()},
		{"names out of order", s().dir("d").file("b", "x").file("a", "y").end()},
		{"directory that was left", s().dir("d").dir("a").file("a/x", "x").dir("b").file("a/y", "y").end()},
		{"file below a file", s().dir("d").file("f", "x").file("f/g", "y").end()},
		{"file below what was never sent", s().dir("d").file("missing/g", "y").end()},
		{"files below a file", s().file("d", "x").file("g", "y").end()},
		{"hard link to what was not sent", s().dir("d").hardLink("h", "../../canary/file").end()},
		{"hard link to a file that allows none", s().dir("d").file("f", "x").hardLink("h", "f").end()},
		{"hard link to a directory", s().dir("d").dir("a").hardLink("h", "a").end()},
		{"hard link to a link", s().dir("d").link("a", "../../canary/file").hardLink("h", "a").end()},
		{"device", s().dir("d").raw('b', "sda", "").end()},
		{"link of a directory's kind", s().raw(kindDir, "d", "/etc").end()},
		{"data of no file", s().dir("d").frame(protocol.FrameChunk, []byte("xx")).end()},
		{"end within a file", open().frame(protocol.FrameChunk, []byte("xx")).end()},
		{"hole without an end", open().hole(1 << 63).data("").end()},
		{"holes that add up to more than there is", open().hole(1 << 62).hole(1 << 62).data("").end()},
		{"hole of nothing", open().hole(0).data("").end()},
		{"hole that is cut", open().frame(protocol.FrameHole, []byte("x")).data("").end()},
		{"a petabyte of hole", open().hole(1 << 50).data("").end()},
		{"cut off in a file", open().frame(protocol.FrameChunk, []byte("x"))},
		{"cut off between files", s().dir("d").file("whole", "x")},
		{"cut off behind the only file", s().file("d", "x")},
		{"the only file cannot be read to its end", s().entry(entry{kind: kindFile, name: "d"}).frame(protocol.FrameChunk, []byte("x")).frame(protocol.FrameDrop, nil).
			frame(protocol.FrameEnd, []byte(`{"failed":1,"failed_names":["d: input/output error"]}`))},
		{"nothing", s()},
		{"the end at once", s().end()},
		{"error in place of a file", s().frame(protocol.FrameError, []byte(`{"code":"failed","message":"no"}`))},
		{"unknown frame", s().frame(protocol.FrameExit, []byte("{}"))},
		{"too many files", s().dir("d").file("1", "").file("2", "").file("3", "").file("4", "").end()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			destination, untouched := arena(t)
			if _, err := receive(tt.sent, destination, Options{Name: "d", MaxEntries: 4}); err == nil {
				t.Error("Receive() = nil error")
			} else if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the error is not a single line: %q", err)
			}
			if !untouched() {
				t.Error("something outside of the destination changed")
			}
			if left := temporaries(destination); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			entries, _ := os.ReadDir(destination)
			for _, e := range entries {
				if e.Name() != "d" {
					t.Errorf("%s was made, which nobody asked for", e.Name())
				}
			}
		})
	}
}

// Whatever a name is, an error text of it moves no cursor and is one line.
func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"a b/ü": "a b/ü", "x\x1b[2J": `"x\x1b[2J"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "\u202e": `"\u202e"`,
		strings.Repeat("é", 200): strings.Repeat("é", 128) + "…",
	} {
		if got := printable(name); got != want {
			t.Errorf("printable(%q) = %s, want %s", name, got, want)
		}
	}
}

// So are the names of what the sender says that it left out, and they are not many.
func TestNamesOfWhatWasLeftOut(t *testing.T) {
	names := slices.Repeat([]string{"x\x1b[2J\nok"}, 5000)
	end, err := json.Marshal(protocol.Copied{Skipped: 5000, SkippedNames: names, Failed: 5000, FailedNames: names})
	if err != nil {
		t.Fatal(err)
	}
	destination, _ := arena(t)
	copied, err := receive((&stream{}).dir("d").file("f", "fine").frame(protocol.FrameEnd, end), destination, Options{Name: "d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range [][]string{copied.SkippedNames, copied.FailedNames} {
		if len(got) != maxSkippedNames || slices.ContainsFunc(got, func(n string) bool { return n != `"x\x1b[2J\nok"` }) {
			t.Errorf("%d names, the first %q", len(got), got[0])
		}
	}
}

// What a link in place of a directory leads to keeps its mode and time.
func TestLinkInPlaceOfADirectoryIsNotFollowedOut(t *testing.T) {
	destination, untouched := arena(t)
	canary := filepath.Join(filepath.Dir(destination), "canary")
	before, _ := os.Stat(canary)
	s := (&stream{}).dir("d").dir("sub").link("sub2", "x")
	// The directory is exchanged for a link before its mode is set.
	s.raw(kindLink, "sub", "../../canary").end()
	_, _ = receive(s, destination, Options{Name: "d"})
	after, _ := os.Stat(canary)
	if !untouched() || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the directory outside is %v, %v; was %v, %v", after.Mode(), after.ModTime(), before.Mode(), before.ModTime())
	}
}

func TestSetuidStaysInTheGuest(t *testing.T) {
	for _, o := range []Options{{Name: "tool"}, {Name: "tool", Preserve: true}, {Trusted: true}} {
		for _, old := range []bool{false, true} {
			destination, _ := arena(t)
			file := filepath.Join(destination, "tool")
			if old { // what is replaced was setuid, for what it was before
				if err := errors.Join(os.WriteFile(file, nil, 0o755), os.Chmod(file, 0o755|os.ModeSetuid)); err != nil {
					t.Fatal(err)
				}
			}
			s := (&stream{}).entry(entry{kind: kindFile, mode: 0o6755, name: "tool"}).data("x").end()
			if _, err := receive(s, destination, o); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(file)
			if err != nil || (info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0) != o.Trusted {
				t.Errorf("%+v, over a setuid file %v: mode %v, %v", o, old, info.Mode(), err)
			}
		}
	}
	destination, _ := arena(t)
	s := (&stream{}).entry(entry{kind: kindDir, mode: 0o7777, name: "d"}).entry(entry{kind: kindDir, mode: 0o7777, name: "e"}).end()
	if _, err := receive(s, destination, Options{Name: "d", Preserve: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/e"} {
		if info, err := os.Stat(filepath.Join(destination, name)); err != nil || info.Mode() != os.ModeDir|0o777 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// copyOver copies as host and guest do.
func copyOver(t *testing.T, source, destination string, o Options) (protocol.Copied, error) {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		_, err := Send(t.Context(), w, source, SendOptions{Devices: true})
		w.CloseWithError(err)
	}()
	base, err := baseOf(source)
	if err != nil {
		t.Fatal(err)
	}
	if o.Content = IsContent(source); !o.Trusted {
		o.Name = base
	}
	copied, err := Receive(t.Context(), protocol.NewReader(r), destination, o)
	r.Close()
	return copied, err
}

func TestEntryRoundTrip(t *testing.T) {
	want := entry{kind: kindFile, mode: 0o4755, uid: 1000, gid: 1<<32 - 2, mtime: time.Unix(-5, 999999999), name: "a b/c\nd\xff"}
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
// may change, nothing but what was asked for be made, and no temporary file stay.
func FuzzReceive(f *testing.F) {
	f.Add((&stream{}).dir("d").link("l", "../../canary").file("l/x", "evil").end().Bytes())
	f.Add((&stream{}).dir("d").dir("e").file("e/f", "x").link("e/l", "f").end().Bytes())
	f.Add((&stream{}).dir("d").entry(entry{kind: kindLinked, name: "f"}).data("x").hardLink("g", "f").hardLink("old", "f").end().Bytes())
	f.Add((&stream{}).dir("d").file("out", "x").file("old", "y").end().Bytes())
	f.Add((&stream{}).dir("d").file("out/x", "x").dir("out").file("out/x", "y").end().Bytes())
	f.Add((&stream{}).file("d", "x").end().Bytes())
	f.Add((&stream{}).dir("d").entry(entry{kind: kindFile, name: "f"}).hole(1 << 40).data("x").end().Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, merge := range []bool{false, true} {
			destination, untouched := arena(t)
			if merge { // what is there has a link out, and a file
				in := filepath.Join(destination, "d")
				if err := errors.Join(os.Mkdir(in, 0o755), os.Symlink("../../canary", filepath.Join(in, "out")), os.WriteFile(filepath.Join(in, "old"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = Receive(t.Context(), protocol.NewReader(bytes.NewReader(data)), destination, Options{Name: "d", MaxEntries: 100, MaxSize: 1 << 20})
			if !untouched() {
				t.Error("something outside of the destination changed")
			}
			if left := temporaries(destination); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if entries, _ := os.ReadDir(destination); len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "d" {
				t.Errorf("made: %v", entries)
			}
		}
	})
}
