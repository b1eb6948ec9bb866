package pack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// maxHeader bounds what unpacking reads beside the files' data, in bytes: tar
// headers and padding.
const maxHeader = 64 << 10

// ErrInvalid is wrapped by errors about archives that are not what their
// catalog says.
var ErrInvalid = errors.New("not a valid image archive")

// Unpack unpacks an archive into a directory. The archive must hold the files
// of its catalog entry, in order, and nothing else; no other name and no byte
// more is ever written. After an error some of them may be there.
func Unpack(ctx context.Context, r io.Reader, dir string, entry *catalog.Image, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", entry.ID, err)
	}
	defer root.Close()
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", entry.ID, err)
	}
	defer z.Close()
	limited := &io.LimitedReader{R: z, N: entry.Size + maxHeader}
	if err := unpack(ctx, limited, root, entry, progress); err != nil {
		return fmt.Errorf("unpacking %s: %w", entry.ID, err)
	}
	return nil
}

func unpack(ctx context.Context, r io.Reader, root *os.Root, entry *catalog.Image, progress func(done, total int64)) error {
	t := tar.NewReader(r)
	var done int64
	for _, name := range catalog.Files() {
		header, err := t.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: %s is missing: %w", ErrInvalid, name, err)
		}
		want := entry.Files[name]
		if header.Name != name || header.Typeflag != tar.TypeReg || header.Size != want.Size {
			return fmt.Errorf("%w: it has %.80q of type %q and %d bytes in place of %s of %d bytes", ErrInvalid, header.Name, header.Typeflag, header.Size, name, want.Size)
		}
		got, err := writeFile(ctx, root, name, t, func(n int64) { progress(done+n, entry.Size) })
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: %s has another digest than the catalog says", ErrInvalid, name)
		}
		done += got.Size
	}
	if header, err := t.Next(); err == nil {
		return fmt.Errorf("%w: it has a further file, %.80q", ErrInvalid, header.Name)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// The checksum of the compression comes last.
	n, err := io.Copy(io.Discard, r)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d bytes follow its end", n)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func writeFile(ctx context.Context, root *os.Root, name string, r io.Reader, progress func(n int64)) (image.File, error) {
	f, err := createIn(root, name)
	if err != nil {
		return image.File{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := copyContext(ctx, io.MultiWriter(f, sum), r, progress)
	if err != nil {
		return image.File{}, fmt.Errorf("%s: %w", name, err)
	}
	return image.File{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, f.Close()
}

// createIn makes a file of an image, with its mode whatever the umask.
func createIn(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, image.FileMode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(image.FileMode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
