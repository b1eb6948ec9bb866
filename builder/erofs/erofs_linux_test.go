package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/erofs"
)

// maker makes random trees and remembers what is in them.
type maker struct {
	t       *testing.T
	r       *rand.Rand
	w       *erofs.Writer
	files   []*erofs.Inode
	content map[*erofs.Inode][]byte
}

// sizes are around every limit of the format: inline tails, blocks, holes.
var sizes = []int{0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8100, 8191, 8192, 65536, 131071, 131072, 131073, 200001, 262144}

func (m *maker) xattrs() map[string]string {
	if m.r.IntN(6) > 0 {
		return nil
	}
	x := map[string]string{}
	for n := range 1 + m.r.IntN(3) {
		// Beyond a block, too.
		x[fmt.Sprintf("user.%d%s", n, strings.Repeat("n", m.r.IntN(200)))] = strings.Repeat("v", m.r.IntN(1<<m.r.IntN(14)))
	}
	return x
}

func (m *maker) file() *erofs.Inode {
	i := &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Links: 1, UID: m.r.Uint32N(1 << 20), Seconds: m.r.Int64N(1 << 33), Nanos: m.r.Uint32N(1e9), Xattrs: m.xattrs()}
	b := make([]byte, sizes[m.r.IntN(len(sizes))])
	for at := 0; at < len(b); at += 65536 {
		if m.r.IntN(3) > 0 { // else a hole
			part := b[at:min(at+65536, len(b))]
			for k := range part {
				part[k] = 1 + byte(m.r.Uint32N(255))
			}
		}
	}
	if err := m.w.AddFile(i, bytes.NewReader(b), int64(len(b))); err != nil {
		m.t.Fatal(err)
	}
	m.content[i] = b
	return i
}

func (m *maker) dir(depth int) *erofs.Inode {
	d := &erofs.Inode{Mode: erofs.TypeDir | 0o755, Links: 1, Entries: map[string]*erofs.Inode{}, Xattrs: m.xattrs()}
	if depth == 0 && len(d.Xattrs) > 0 {
		d.Xattrs = map[string]string{"user.root": "r"}
	}
	for n := range m.r.IntN(1 << m.r.IntN(8)) {
		name := fmt.Sprintf("%c%d%s", "!-.Aaz~\xff"[m.r.IntN(8)], n, strings.Repeat("x", m.r.IntN(1<<m.r.IntN(8))))
		var i *erofs.Inode
		switch m.r.IntN(12) {
		case 0:
			if depth < 3 {
				i = m.dir(depth + 1)
				break
			}
			fallthrough
		case 1:
			i = &erofs.Inode{Mode: erofs.TypeSymlink | 0o777, Links: 1, Target: strings.Repeat("t", 1+m.r.IntN(1<<m.r.IntN(12))), Xattrs: nil}
		case 2:
			i = &erofs.Inode{Mode: erofs.TypeChar | 0o600, Links: 1, Major: m.r.Uint32N(1 << 12), Minor: m.r.Uint32N(1 << 20), Xattrs: nil}
		case 3:
			i = &erofs.Inode{Mode: erofs.TypeFIFO | 0o600, Links: 1}
		case 4:
			if len(m.files) > 0 {
				i = m.files[m.r.IntN(len(m.files))]
				i.Links++
				break
			}
			fallthrough
		default:
			i = m.file()
			// Half of the files are replaced at once: their room is used again.
			if m.r.IntN(2) == 0 {
				if err := m.w.Discard(i); err != nil {
					m.t.Fatal(err)
				}
				i = m.file()
			}
			m.files = append(m.files, i)
		}
		d.Entries[name] = i
	}
	return d
}

// compare compares what the kernel shows below path with i.
func (m *maker) compare(path string, i *erofs.Inode, inodes map[*erofs.Inode]uint64) {
	t := m.t
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	links := i.Links
	if i.IsDir() {
		links = uint32(st.Nlink)
	}
	if st.Mode != i.Mode || st.Uid != i.UID || st.Mtim.Sec != i.Seconds || st.Mtim.Nsec != int64(i.Nanos) || uint32(st.Nlink) != links {
		t.Errorf("%s: stat %+v, want %+v", path, st, i)
	}
	if ino, ok := inodes[i]; ok && ino != st.Ino {
		t.Errorf("%s: inode %d, its other name has %d", path, st.Ino, ino)
	}
	inodes[i] = st.Ino
	for name, want := range i.Xattrs {
		buf := make([]byte, len(want)+1)
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("%s: attribute %.20s… of %d bytes is %.20q, %v, want %.20q", path, name, len(want), buf[:max(n, 0)], err, want)
		}
	}
	switch i.Type() {
	case erofs.TypeDir:
		entries, err := os.ReadDir(path)
		if err != nil || len(entries) != len(i.Entries) {
			t.Errorf("%s: %d entries, %v, want %d", path, len(entries), err, len(i.Entries))
		}
		for name, e := range i.Entries {
			m.compare(path+"/"+name, e, inodes)
		}
	case erofs.TypeRegular:
		m.compareFile(path, i)
	case erofs.TypeSymlink:
		if target, err := os.Readlink(path); err != nil || target != i.Target {
			t.Errorf("%s: target %.40q, %v, want %.40q", path, target, err, i.Target)
		}
	case erofs.TypeChar:
		if unix.Major(st.Rdev) != i.Major || unix.Minor(st.Rdev) != i.Minor {
			t.Errorf("%s: device %d:%d, want %d:%d", path, unix.Major(st.Rdev), unix.Minor(st.Rdev), i.Major, i.Minor)
		}
	}
}

// compareFile compares by read and by mmap, which shows what is behind the end
// of a file, too: nothing.
func (m *maker) compareFile(path string, i *erofs.Inode) {
	t := m.t
	want := m.content[i]
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v, differ from the %d written", path, len(got), err, len(want))
	}
	if len(want) == 0 {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := (len(want) + 4095) &^ 4095
	mapped, err := unix.Mmap(int(f.Fd()), 0, whole, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if !bytes.Equal(mapped, append(bytes.Clone(want), make([]byte, whole-len(want))...)) {
		t.Errorf("%s: mapped, its %d bytes or what is behind them differ", path, len(want))
	}
}

// The kernel reads back any tree as it was written.
func TestKernelReadsWhatWasWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs root or a VM")
	}
	entries := 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			f, err := os.Create(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := &maker{t: t, r: rand.New(rand.NewPCG(seed, 0)), w: erofs.NewWriter(f), content: map[*erofs.Inode][]byte{}}
			root := m.dir(0)
			if err := m.w.Close(root, [16]byte{1}); err != nil {
				t.Fatal(err)
			}
			buildertest.Run(t, "fsck.erofs", image)
			mount := t.TempDir()
			buildertest.Run(t, "mount", "-t", "erofs", "-o", "ro,loop", image, mount)
			defer buildertest.Run(t, "umount", mount)
			m.compare(mount, root, map[*erofs.Inode]uint64{})
			_ = filepath.WalkDir(mount, func(string, fs.DirEntry, error) error { entries++; return nil })
		})
	}
	if entries < 1000 {
		t.Errorf("only %d entries were compared", entries)
	}
}

// A reader that ends early is an error, now and at the end.
func TestShortFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	i := &erofs.Inode{Mode: erofs.TypeRegular}
	for _, err := range []error{
		w.AddFile(i, strings.NewReader("short"), 5000),
		w.Close(&erofs.Inode{Mode: erofs.TypeDir, Entries: map[string]*erofs.Inode{}}, [16]byte{}),
	} {
		if err == nil || !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
			t.Errorf("error %v, want %v", err, io.ErrUnexpectedEOF)
		}
	}
}

// An error says what it is about, in few words however deep that is.
func TestErrorNamesTheEntry(t *testing.T) {
	for _, tt := range []struct {
		depth int
		want  string
	}{{0, `"/"`}, {2, `"/dddd`}, {2000, `"…`}} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d := &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{}, Xattrs: map[string]string{"user." + strings.Repeat("n", 256): ""}}
		for range tt.depth {
			d = &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{strings.Repeat("d", 50): d}}
		}
		err = erofs.NewWriter(f).Close(d, [16]byte{})
		if !errors.Is(err, erofs.ErrTooLarge) || !strings.HasPrefix(err.Error(), tt.want) || len(err.Error()) > 1000 {
			t.Errorf("Close() = %.200v, %d bytes; want ErrTooLarge of %s", err, len(fmt.Sprint(err)), tt.want)
		}
	}
}

// Nothing of a removed file stays in the image, however many there are.
func TestRemovedFilesLeaveNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	root := &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{}}
	add := func(name, content string, size int) *erofs.Inode {
		i := &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Links: 1}
		if err := w.AddFile(i, strings.NewReader(strings.Repeat(content, size/len(content))), int64(size)); err != nil {
			t.Fatal(err)
		}
		root.Entries[name] = i
		return i
	}
	// More gaps between files that stay than the list of free blocks has room for.
	var removed []*erofs.Inode
	for n := range 6000 {
		add(fmt.Sprint("kept", n), "keep", 5000)
		removed = append(removed, add("removed", "secret ", 7*1170)) // its tail does not fit behind its inode
	}
	delete(root.Entries, "removed")
	for _, i := range removed {
		if err := w.Discard(i); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3000 {
		add(fmt.Sprint("new", n), "new!", 4096+4*(n%1024))
	}
	if err := w.Close(root, [16]byte{}); err != nil {
		t.Fatal(err)
	}
	buildertest.Run(t, "fsck.erofs", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("secret")); n > 0 {
		t.Errorf("the image has %d pieces of removed files", n)
	}
	// The new files are where removed ones were: it has 21564 blocks, and would
	// have 24594.
	if blocks := len(b) / 4096; blocks > 22000 {
		t.Errorf("the image has %d blocks", blocks)
	}
}
