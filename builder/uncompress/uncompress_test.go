package uncompress

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func by(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, append(args, "-c")...)
	cmd.Stdin = strings.NewReader("content")
	z, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return z
}

func TestReader(t *testing.T) {
	tar := make([]byte, 1024) // an archive whose first file has a name that begins as bzip2 does
	copy(tar, "BZh9")
	copy(tar[257:], "ustar")
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
		{"bzip2 twice", append(by(t, "bzip2"), by(t, "bzip2")...), "contentcontent", true},
		{"xz", by(t, "xz", "-9"), "content", true},
		{"xz of several streams", append(by(t, "xz"), by(t, "xz")...), "contentcontent", true},
		{"xz with a large dictionary", by(t, "xz", "--lzma2=dict=1GiB"), "dictionary of 1073741824 bytes", false},
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
			r, err := Reader(bytes.NewReader(tt.stream))
			var got []byte
			if err == nil {
				defer r.Close()
				got, err = io.ReadAll(r)
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
