package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Files whose size is not what the system says are read to the end.
func TestSizesThatAreNotSo(t *testing.T) {
	target := t.TempDir()
	for _, source := range []string{"/proc/self/status", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/environ"} {
		want, err := os.ReadFile(source)
		if err != nil {
			t.Log(err)
			continue
		}
		if _, err := copyOver(t, source, target+"/got", Options{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(target + "/got")
		if err != nil || len(got) == 0 || len(got) < len(want)/2 {
			t.Errorf("%s: %d bytes of %d, %v", source, len(got), len(want), err)
		}
	}
	// It grows while it is read.
	grows := filepath.Join(target, "grows")
	build(t, target, "grows="+strings.Repeat("x", 1<<20))
	r, w := io.Pipe()
	go func() {
		_, err := Send(t.Context(), &growing{Writer: w, path: grows}, grows, SendOptions{})
		w.CloseWithError(err)
	}()
	if _, err := Receive(t.Context(), protocol.NewReader(r), target+"/got", Options{Name: "grows"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(target + "/got"); err != nil || info.Size() != 2<<20 {
		t.Errorf("got %d bytes, %v", info.Size(), err)
	}
}

// growing makes a file longer, or shorter, when it is first written to.
type growing struct {
	io.Writer
	path string
	once bool
	size int64 // 0: another MiB
}

func (g *growing) Write(p []byte) (int, error) {
	if !g.once {
		g.once = true
		if g.size > 0 {
			_ = os.Truncate(g.path, g.size)
		} else if f, err := os.OpenFile(g.path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, _ = f.Write(make([]byte, 1<<20))
			f.Close()
		}
	}
	return g.Writer.Write(p)
}

func TestAFileThatBecomesShorter(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, "f="+strings.Repeat("x", 1<<20))
	r, w := io.Pipe()
	go func() {
		_, err := Send(t.Context(), &growing{Writer: w, path: dir + "/f", size: 300 << 10}, dir+"/f", SendOptions{})
		w.CloseWithError(err)
	}()
	if _, err := Receive(t.Context(), protocol.NewReader(r), dir+"/got", Options{Name: "f"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/got"); err != nil || info.Size() != 300<<10 {
		t.Errorf("got %d bytes, %v", info.Size(), err)
	}
}

// Hard links are copied once, as links, and once only when they are copied again.
func TestHardLinks(t *testing.T) {
	base, target := t.TempDir(), t.TempDir()
	build(t, base, "tree/a="+strings.Repeat("x", 1<<20), "tree/sub/")
	for n := range 10 {
		if err := os.Link(base+"/tree/a", fmt.Sprintf("%s/tree/sub/%d", base, n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, trusted := range []bool{false, true} {
		for range 2 {
			copied, err := copyOver(t, base+"/tree", target, Options{Trusted: trusted, MaxSize: 2 << 20})
			if err != nil || copied.Bytes != 1<<20 {
				t.Fatalf("copy = %+v, %v", copied, err)
			}
			info, err := os.Stat(target + "/tree/sub/9")
			if err != nil || links(info) != 11 || info.Size() != 1<<20 {
				t.Errorf("the last is %v with %d links, %v", info, links(info), err)
			}
		}
		if left := temporaries(target); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	// A link of the receiver's in place of one of the names is written through.
	for _, there := range []string{"tree/sub/3->../elsewhere", "tree/a->elsewhere"} {
		target = t.TempDir()
		build(t, target, "tree/elsewhere=old", there)
		if _, err := copyOver(t, base+"/tree", target, Options{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"elsewhere", "sub/7"} {
			if info, err := os.Stat(target + "/tree/" + name); err != nil || info.Size() != 1<<20 {
				t.Errorf("%s, beside %s, has %d bytes, %v", name, there, info.Size(), err)
			}
		}
	}
}

// Bounds count what is written: holes, links and small files as a file system
// does. What was new of a copy that is too large is removed.
func TestBounds(t *testing.T) {
	big := strings.Repeat("x", 60<<10)
	tests := []struct {
		name   string
		sent   *stream
		tooBig bool
	}{
		{"a file that fits", (&stream{}).file("d", big).end(), false},
		{"a file that does not", (&stream{}).entry(entry{kind: kindFile, name: "d"}).frame(protocol.FrameChunk, []byte(big)).frame(protocol.FrameChunk, []byte(big)).data("").end(), true},
		{"two files that do not", (&stream{}).dir("d").file("1", big).file("2", big).end(), true},
		{"many files of a byte", many(30), true},
		{"a few files of a byte", many(10), false},
		{"a hole that fits", (&stream{}).entry(entry{kind: kindFile, name: "d"}).hole(6 << 20).data("x").end(), false},
		{"a petabyte of hole", (&stream{}).entry(entry{kind: kindFile, name: "d"}).hole(1 << 50).data("x").end(), true},
		{"holes that add up", (&stream{}).entry(entry{kind: kindFile, name: "d"}).hole(4 << 20).data("").end(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := receive(tt.sent, dir+"/made/d", Options{Name: "d", MaxSize: 100 << 10})
			if errors.Is(err, ErrTooMuch) != tt.tooBig || err != nil && !tt.tooBig {
				t.Errorf("error %v", err)
			}
			if got := listed(t, dir); tt.tooBig && got != "" {
				t.Errorf("left behind: %.200q", got)
			}
		})
	}
	t.Run("depth", func(t *testing.T) {
		s := (&stream{}).dir("d")
		for n := 1; n < 1500; n++ {
			s.dir(strings.TrimSuffix(strings.Repeat("a/", n), "/"))
		}
		if _, err := receive(s.end(), t.TempDir(), Options{Name: "d"}); !errors.Is(err, ErrTooMuch) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("by default", func(t *testing.T) {
		dir := t.TempDir()
		most := defaultMaxSize(dir)
		if most <= 0 {
			t.Fatalf("half of what is free is %d", most)
		}
		s := (&stream{}).entry(entry{kind: kindFile, name: "d"}).hole(1 << 61).data("x").end()
		if _, err := receive(s, dir, Options{Name: "d"}); !errors.Is(err, ErrTooMuch) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("what was there stays", func(t *testing.T) {
		dir := t.TempDir()
		build(t, dir, "d/old=o")
		if _, err := receive((&stream{}).dir("d").file("1", big).file("2", big).end(), dir, Options{Name: "d", MaxSize: 100 << 10}); !errors.Is(err, ErrTooMuch) || !strings.Contains(err.Error(), "; one file was copied before") {
			t.Errorf("error %v", err)
		}
		if b, err := os.ReadFile(dir + "/d/old"); string(b) != "o" {
			t.Error(err)
		}
	})
}

func many(n int) *stream {
	s := (&stream{}).dir("d")
	for i := range n {
		s.file(fmt.Sprintf("%04d", i), "x")
	}
	return s.end()
}

// Sparse files stay so, and sockets, FIFOs and devices of a tree are left out by
// name.
func TestSparseAndSpecialFiles(t *testing.T) {
	base, target := t.TempDir(), t.TempDir()
	build(t, base, "tree/empty/")
	f, err := os.Create(base + "/tree/sparse")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteAt([]byte("middle"), 100<<20)
	_ = f.Truncate(1 << 30)
	f.Close()
	if err := syscall.Mkfifo(base+"/tree/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	stamp := time.Unix(1500000000, 123000000)
	for _, name := range []string{"sparse", "empty", "."} {
		if err := os.Chtimes(base+"/tree/"+name, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	copied, err := copyOver(t, base+"/tree", target+"/got", Options{MaxSize: 20 << 20})
	if err != nil || copied.Skipped != 1 || copied.SkippedNames[0] != "fifo" {
		t.Errorf("copy = %+v, %v", copied, err)
	}
	info, err := os.Stat(target + "/got/sparse")
	if err != nil || info.Size() != 1<<30 || info.Sys().(*syscall.Stat_t).Blocks > 2048 {
		t.Errorf("sparse file: %v, %v", info, err)
	}
	for _, name := range []string{"sparse", "empty", "."} {
		if info, err := os.Stat(target + "/got/" + name); err != nil || !info.ModTime().Equal(stamp) {
			t.Errorf("%s is of %v, %v", name, info.ModTime(), err)
		}
	}
}
