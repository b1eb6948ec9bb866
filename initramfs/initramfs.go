// Package initramfs holds the first file system of every guest: a cpio archive
// with one program, which is init and agent in one. It is built for both
// architectures and embedded here; see cmd/mkinitramfs.
package initramfs

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

//go:embed all:out
var out embed.FS

// maxSize bounds the unpacked archive, in bytes.
const maxSize = 64 << 20

// ErrNotBuilt is wrapped by Open's error when this program was built without
// the archive.
var ErrNotBuilt = errors.New("this build of lumina has no initramfs; run make build")

// Read returns the uncompressed cpio archive for an architecture, in Go's name.
func Read(arch string) ([]byte, error) {
	packed, err := out.ReadFile("out/initramfs-" + arch + ".cpio.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("architecture %q: %w", arch, ErrNotBuilt)
	}
	if err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	b, err := d.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpacking the initramfs for %q: %w", arch, err)
	}
	return b, nil
}
