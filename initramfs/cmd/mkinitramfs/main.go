// Mkinitramfs packs a guest's init into a cpio archive with u-root's writer,
// compressed for embedding. The same init gives the same bytes.
//
//	mkinitramfs INIT OUT.cpio.zst
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: mkinitramfs INIT OUT.cpio.zst")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "mkinitramfs: %v\n", err)
		os.Exit(1)
	}
}

func pack(initPath, out string) error {
	program, err := os.ReadFile(initPath)
	if err != nil {
		return fmt.Errorf("reading init: %w", err)
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecordsAndDirs(w, []cpio.Record{
		// The kernel opens the console before init can mount devtmpfs.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.Directory("lower", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("root", 0o755),
		cpio.Directory("scratch", 0o755),
		cpio.Directory("sys", 0o755),
		cpio.StaticFile("init", string(program), 0o755),
	}); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	return os.WriteFile(out, e.EncodeAll(archive.Bytes(), nil), 0o644)
}
