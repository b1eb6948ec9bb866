package ext4

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func format(t testing.TB, size int64) string {
	t.Helper()
	return formatAs(t, size, false)
}

func formatAs(t testing.TB, size int64, grows bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Format(f, size, Options{Label: "scratch", UUID: [16]byte{1, 2, 3}, Grows: grows}); err != nil {
		t.Fatalf("Format(%d) = %v", size, err)
	}
	return path
}

// The judge is e2fsprogs, not our reading of the format.
func TestFormatIsCleanAndSparse(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs e2fsck")
	}
	tests := []struct {
		name string
		size int64
	}{
		{"least", MinSize},
		{"not a multiple of a block", MinSize + 1234},
		{"one group exactly", 128 << 20},
		{"one block more than a group", 128<<20 + blockSize},
		{"last group with little room", 256<<20 + 3<<20},
		{"below the step in the inode ratio", smallSize - blockSize},
		{"1 GiB", 1 << 30},
		{"10 GiB and a bit", 10<<30 + 77*blockSize},
		{"100 GiB", 100 << 30},
		{"2 TiB", 2 << 40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := format(t, tt.size)
			out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput()
			if err != nil {
				t.Errorf("e2fsck: %v\n%s", err, out)
			}
			header, err := exec.Command("dumpe2fs", "-h", path).CombinedOutput()
			if err != nil || !strings.Contains(string(header), "has_journal") {
				t.Errorf("dumpe2fs: %v\n%s", err, header)
			}
			var st syscall.Stat_t
			if err := syscall.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			// Beside the group descriptors and their copy, which grow with it.
			limit := int64(128<<10) + 2*tt.size/(128<<20)*descSize
			if used := st.Blocks * 512; used > limit {
				t.Errorf("an empty file system takes %d bytes on the host", used)
			}
		})
	}
}

// What the kernel needs to go on when the host's disk is full is in what Reserve takes:
// journal, bitmaps, the first inodes, and room for directories and for small files.
func TestReserve(t *testing.T) {
	for _, size := range []int64{MinSize, 256 << 20, 1 << 30, 16 << 30, 1 << 40} {
		path := format(t, size)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Reserve(f, size); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if used, most := st.Blocks*512, min(size, 64<<20); runtime.GOOS == "linux" && used > most {
			t.Errorf("%d bytes: takes %d bytes of the host", size, used)
		}
		l := layOut(size, false)
		held := func(block uint32) bool {
			return slices.ContainsFunc(l.reserved(), func(s span) bool {
				return int64(block)*blockSize >= s.start && int64(block+1)*blockSize <= s.start+s.length
			})
		}
		last := min(l.groups, maxBitmaps) - 1
		for what, block := range map[string]uint32{"the journal's end": l.journalBlock() + l.journalBlocks - 1, "the last bitmap": l.inodeBitmapAt(last),
			"the inodes of group 0": l.inodeTableAt(0) + l.tableBlocks - 1, "a directory": l.journalBlock() + l.journalBlocks + 400} {
			if !held(block) {
				t.Errorf("%d bytes: %s, block %d, is not reserved", size, what, block)
			}
		}
		if l.groups > 1 && !held(l.own(1)+400) {
			t.Errorf("%d bytes: the beginning of group 1 is not reserved", size)
		}
	}
}

// One that grows is as clean.
func TestFormatGrows(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs e2fsck")
	}
	for _, size := range []int64{MinSize, 128<<20 + blockSize, 256<<20 + 3<<20, 1 << 30, 16 << 30} {
		path := formatAs(t, size, true)
		if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
			t.Errorf("%d bytes: e2fsck: %v\n%s", size, err, out)
		}
	}
}

func TestFormatTakesFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs debugfs")
	}
	path := format(t, 1<<30)
	source := filepath.Join(t.TempDir(), "source")
	want := strings.Repeat("0123456789abcdef", 1<<20)
	if err := os.WriteFile(source, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	for _, command := range []string{"mkdir d", "write " + source + " d/f"} {
		if out, err := exec.Command("debugfs", "-w", "-R", command, path).CombinedOutput(); err != nil {
			t.Fatalf("debugfs %s: %v\n%s", command, err, out)
		}
	}
	if out, err := exec.Command("debugfs", "-R", "dump d/f "+back, path).CombinedOutput(); err != nil {
		t.Fatalf("debugfs dump: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(back); err != nil || string(got) != want {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck afterwards: %v\n%s", err, out)
	}
}

func TestFormatRefuses(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{-1, 0, MinSize - 1, MaxSize + 1} {
		if err := Format(f, size, Options{}); !errors.Is(err, ErrSize) {
			t.Errorf("Format(%d) = %v, want ErrSize", size, err)
		}
	}
	if info, _ := f.Stat(); info.Size() != 0 {
		t.Errorf("a refused Format left %d bytes", info.Size())
	}
}

func BenchmarkFormat10GiB(b *testing.B) {
	path := filepath.Join(b.TempDir(), "fs")
	for b.Loop() {
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := Format(f, 10<<30, Options{}); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
