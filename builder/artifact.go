package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/uncompress"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// An image as it is, with kernel and initramfs, is an artifact of a registry: its
// configuration is image.json, its blobs are the other files, each compressed, the root
// in chunks or, as older versions sent it, whole.
const (
	artifactType     = "application/vnd.lumina.image.v1+json"
	artifactFileType = "application/vnd.lumina.file.v1+zstd"
)

// ErrNotArtifact is wrapped when a reference is not of an image that
// PushArtifact sent.
var ErrNotArtifact = oci.ErrNotArtifact

// PushArtifact sends an image to a registry as it is. What is pulled by
// PullArtifact is the same, byte for byte, and needs nothing made.
func PushArtifact(ctx context.Context, o PushOptions) (string, error) {
	h, err := o.Store.Open(o.Name)
	if err != nil {
		return "", err
	}
	defer h.Close()
	if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
		return "", err
	}
	a := oci.Artifact{ConfigType: artifactType, Annotations: annotationsOf(h.Image, nil, o.Annotations)}
	if a.Config, err = os.ReadFile(h.Path("image.json")); err != nil {
		return "", err
	}
	for _, name := range imageFiles {
		if name == image.Rootfs {
			chunks, compressed, err := compressChunks(ctx, name, h.Path(name), o.CacheDir)
			if err != nil {
				return "", fmt.Errorf("pushing image %q: %w", o.Name, err)
			}
			defer compressed.Close()
			a.Blobs = append(a.Blobs, chunks...)
			continue
		}
		blob, compressed, err := compress(ctx, h.Path(name), o.CacheDir)
		if err != nil {
			return "", fmt.Errorf("pushing image %q: %w", o.Name, err)
		}
		defer compressed.Close()
		blob.Name = name
		a.Blobs = append(a.Blobs, *blob)
	}
	digest, err := oci.PushArtifact(ctx, o.Reference, a, o.Progress)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", err
	}
	return digest, o.complete(ctx, digest)
}

// imageFiles are those of an image beside image.json.
var imageFiles = []string{image.Kernel, image.Initramfs, image.Rootfs}

// compress writes a file, compressed, into one without a name in dir, to be
// closed. The same file gives the same bytes.
func compress(ctx context.Context, from, dir string) (blob *oci.Blob, out *os.File, err error) {
	in, err := os.Open(from)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	if out, err = unnamed(dir); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	sum := sha256.New()
	z, err := zstd.NewWriter(io.MultiWriter(out, sum))
	if err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(z, interruptible{ctx, in}); err != nil {
		return nil, nil, errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return nil, nil, err
	}
	size, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil, err
	}
	return &oci.Blob{
		MediaType: artifactFileType, Size: size,
		Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))},
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(out, 0, size)), nil },
	}, out, nil
}

type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// PullOptions says which artifact to make an image of.
type PullOptions struct {
	Name, Reference string
	// Architecture is the one that the image must have.
	Architecture string
	Store        *image.Store
	// CacheDir keeps what was fetched of an image until it is whole.
	CacheDir string
	// MaxSize, Replace and Verify are as those of Options.
	MaxSize  int64
	Replace  bool
	verified verified
	Verify   Verifier
	Progress func(Progress)
}

// PullArtifact fetches an image that PushArtifact sent and installs it.
func PullArtifact(ctx context.Context, o PullOptions) (*image.Image, error) {
	a, err := oci.PullArtifact(ctx, o.Reference, artifactType, o.verified.digest)
	if err != nil {
		return nil, fmt.Errorf("pulling %q: %w", o.Reference, err)
	}
	defer a.Close()
	img, err := image.Parse(bytes.NewReader(a.Config))
	if err == nil && img.Architecture != o.Architecture {
		err = fmt.Errorf("it is for %s, %s was asked for", img.Architecture, o.Architecture)
	}
	if err == nil {
		err = checkSize(img, a, o)
	}
	var blobs [][]oci.Blob
	if err == nil {
		blobs, err = blobsOfFiles(a.Blobs)
	}
	if err != nil {
		return nil, fmt.Errorf("pulling %q: %w", o.Reference, err)
	}
	install := o.Store.Install
	if !o.Replace {
		install = o.Store.Add
	}
	err = install(ctx, o.Name, func(dir string) error {
		for i, name := range imageFiles {
			path, want := filepath.Join(dir, name), img.Files[name]
			if b := blobs[i][0]; len(blobs[i]) == 1 && b.Annotations[chunkSumAnnotation] == "" {
				err = decompress(ctx, b, path, want, o.Progress)
			} else {
				err = o.pullChunks(ctx, blobs[i], path, want)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err := durable.WriteNew(filepath.Join(dir, "image.json"), a.Config, image.FileMode); err != nil {
			return err
		}
		if err := image.MarkPrebuilt(dir); err != nil {
			return err
		}
		if err := o.verified.write(dir); err != nil || o.Verify == nil {
			return err
		}
		return tryWhole(ctx, o.Verify, o.Progress, func() (*image.Handle, error) { return image.OpenDir(dir) })
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("pulling %q: %w", o.Reference, err)
	}
	return img, nil
}

// blobsOfFiles are the blobs of each of imageFiles.
func blobsOfFiles(blobs []oci.Blob) ([][]oci.Blob, error) {
	files := make([][]oci.Blob, len(imageFiles))
	n := 0
	for _, b := range blobs {
		if n+1 < len(imageFiles) && len(files[n]) > 0 {
			n++ // only the last one, the root, can have several
		}
		if b.Name != imageFiles[n] {
			return nil, fmt.Errorf("%w: %.80q in place of %s", image.ErrInvalid, b.Name, imageFiles[n])
		}
		files[n] = append(files[n], b)
	}
	if len(files[len(files)-1]) == 0 {
		return nil, fmt.Errorf("%w: %d files", image.ErrInvalid, len(blobs))
	}
	return files, nil
}

// checkSize compares what an image says it takes with the limit, before anything
// of it is fetched. No byte more than it says is written then.
func checkSize(img *image.Image, a *oci.Artifact, o PullOptions) error {
	limit, err := o.Store.MaxSize(o.MaxSize)
	if err != nil {
		return err
	}
	unpacked, packed := int64(0), int64(0)
	tooLarge := false
	for _, f := range img.Files {
		tooLarge = tooLarge || f.Size > limit-unpacked
		unpacked += min(f.Size, limit)
	}
	for _, b := range a.Blobs {
		tooLarge = tooLarge || b.Size < 0 || b.Size > limit-packed
		packed += min(b.Size, limit)
	}
	if tooLarge {
		return fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
	}
	return nil
}

// decompress fetches a file. It writes no byte more than the file has.
func decompress(ctx context.Context, blob oci.Blob, to string, want image.File, progress func(Progress)) error {
	body, err := blob.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	defer context.AfterFunc(ctx, func() { body.Close() })()
	done := int64(0)
	z, err := zstd.NewReader(readFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		done += int64(n)
		progress(Progress{Step: "fetch", Item: blob.Digest.String(), Done: done, Total: blob.Size})
		return n, err
	}), zstd.WithDecoderMaxWindow(uncompress.MaxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := durable.Create(to, image.FileMode)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(z, want.Size+1))
	if err != nil {
		return err
	}
	if got := (image.File{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}); got != want {
		return fmt.Errorf("%w: it is not what image.json says", image.ErrInvalid)
	}
	return out.Close()
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
