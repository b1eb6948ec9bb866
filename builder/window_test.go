package builder

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// A file of an artifact does not make who unpacks it hold 512 MiB.
func TestLargeWindow(t *testing.T) {
	// RFC 8878, 3.1.1: magic number, no content size, a window of 2^(10+19) bytes; then
	// blocks of one repeated byte, of 128 KiB each.
	stream := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3}
	const blocks, size = 64, 128 << 10
	for n := range blocks {
		header := size<<3 | 1<<1
		if n == blocks-1 {
			header |= 1
		}
		stream = append(stream, byte(header), byte(header>>8), byte(header>>16), 'x')
	}
	blob := oci.Blob{Size: int64(len(stream)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stream)), nil }}
	err := decompress(t.Context(), blob, filepath.Join(t.TempDir(), "kernel"), image.File{Size: blocks * size}, func(Progress) {})
	if !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Errorf("decompress() = %v, want %v", err, zstd.ErrWindowSizeExceeded)
	}
}
