package uncompress

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

func by(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	buildertest.Needs(t, program)
	cmd := exec.Command(program, append(args, "-c")...)
	cmd.Stdin = strings.NewReader("content")
	z, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return z
}

// secondBlock is a stream whose first block is harmless.
func secondBlock(t testing.TB, large []byte) []byte {
	t.Helper()
	one := by(t, "xz")
	const header, index, footer = 12, 8, 12 // the index of one small block has 8 bytes
	return slices.Concat(one[:len(one)-index-footer], large[header:])
}

// Data that fills many chunks comes out as it was.
func TestLargeXZ(t *testing.T) {
	want := make([]byte, 3<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(random.Uint32() >> (i >> 16 & 7)) // from what does not compress on
	}
	for _, args := range [][]string{{"-1"}, {"-1", "--block-size=100000"}, {"-6", "--check=crc32"}} {
		buildertest.Needs(t, "xz")
		cmd := exec.Command("xz", append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(want)
		z, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Reader(iotest.HalfReader(bytes.NewReader(z)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("xz %q: %d bytes, %v", args, len(got), err)
		}
	}
}

// allocated is how many bytes were taken from the heap so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// A frame of zstd begins so, and has one block (RFC 8878, 3.1.1).
const zstdMagic, zstdBlock = "\x28\xb5\x2f\xfd", "\x39\x00\x00content"

func TestReader(t *testing.T) {
	tar := make([]byte, 1024) // an archive whose first file has a name that begins as bzip2 does
	copy(tar, "BZh9")
	copy(tar[257:], "ustar")
	large := by(t, "xz", "-0", "--lzma2=preset=0,dict=1GiB") // to write it takes gigabytes, too
	tests := []struct {
		name   string
		stream []byte
		want   string // what it holds, or a part of the error
		ok     bool
	}{
		{"plain", []byte("content"), "content", true},
		{"nothing", nil, "", true},
		{"gzip", by(t, "gzip"), "content", true},
		{"gzip twice", append(by(t, "gzip"), by(t, "gzip")...), "contentcontent", true},
		{"zstd twice", append(by(t, "zstd"), by(t, "zstd")...), "contentcontent", true},
		{"zstd behind a frame to skip", append([]byte("\x53\x2a\x4d\x18\x01\x00\x00\x00x"), by(t, "zstd")...), "content", true},
		{"zstd with a long window", by(t, "zstd", "--long=27"), "content", true},
		{"zstd with a window of 128 MiB", []byte(zstdMagic + "\x00\x88" + zstdBlock), "content", true},
		{"zstd with one of 256 MiB", []byte(zstdMagic + "\x00\x90" + zstdBlock), "exceed", false},
		{"zstd with one of 256 MiB in its second frame", append(by(t, "zstd"), zstdMagic+"\x00\x90"+zstdBlock...), "exceed", false},
		{"zstd whose window is all of 1 GiB", []byte(zstdMagic + "\xe0\x00\x00\x00\x40\x00\x00\x00\x00" + zstdBlock), "exceed", false},
		{"bzip2 twice", append(by(t, "bzip2"), by(t, "bzip2")...), "contentcontent", true},
		{"xz", by(t, "xz", "-9"), "content", true},
		{"xz of several streams", append(by(t, "xz"), by(t, "xz")...), "contentcontent", true},
		{"xz with a large dictionary", large, "dictionary of 1073741824 bytes", false},
		{"xz with a large dictionary in its second stream", slices.Concat(by(t, "xz"), large), "dictionary of 1073741824 bytes", false},
		{"xz with a large dictionary behind padding", slices.Concat(by(t, "xz"), make([]byte, 8), large), "dictionary of 1073741824 bytes", false},
		{"xz with a large dictionary in its second block", secondBlock(t, large), "dictionary of 1073741824 bytes", false},
		{"xz of many blocks", by(t, "xz", "--block-size=2"), "content", true},
		{"xz without a check, and padding behind", append(by(t, "xz", "--check=none"), 0, 0, 0, 0), "content", true},
		{"xz with SHA-256", by(t, "xz", "--check=sha256", "-0"), "content", true},
		{"xz of nothing", []byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x00\x00\x00\x00\x1c\xdf\x44\x21\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04YZ"), "", true},
		{"xz that is cut off", by(t, "xz")[:30], "EOF", false},
		{"xz with a filter", by(t, "xz", "--x86", "--lzma2=preset=6"), "filter", false},
		{"lzma", by(t, "xz", "--format=lzma"), "compressed with lzma", false},
		{"zip", []byte("PK\x03\x04"), "compressed with zip", false},
		{"archive of a file whose name looks compressed", tar, string(tar), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.ok && tt.name != "plain" && len(tt.stream) > 0 && tt.want != string(tar) != Is(tt.stream[:min(len(tt.stream), 512)]) {
				t.Errorf("Is() = %v", !Is(tt.stream))
			}
			before := allocated()
			r, err := Reader(bytes.NewReader(tt.stream))
			var got []byte
			if err == nil {
				defer r.Close()
				got, err = io.ReadAll(r)
			}
			if taken := allocated() - before; !tt.ok && taken > 64<<20 {
				t.Errorf("%d bytes were taken of the memory", taken)
			}
			if tt.ok && (err != nil || string(got) != tt.want) {
				t.Errorf("it holds %.80q, %v, want %.80q", got, err, tt.want)
			}
			if !tt.ok && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Reader() = %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Reader(bytes.NewReader([]byte("LZIP"))); !errors.Is(err, ErrUnknown) {
		t.Errorf("Reader() = %v, want ErrUnknown", err)
	}
}

// FuzzReader reads any bytes. Whatever they are, it ends, and takes no more memory
// than it may.
func FuzzReader(f *testing.F) {
	for _, program := range []string{"gzip", "zstd", "bzip2", "xz"} {
		f.Add(by(f, program))
	}
	f.Add(by(f, "xz", "--block-size=1", "-0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Reader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 16<<20))
	})
}
