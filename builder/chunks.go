package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/oci"
)

// The root of an artifact is cut into chunks, each a blob of its own. A registry stores
// the chunks that two versions of an image have in common once, and a host that has one
// version downloads only the other chunks of the next. The content decides where a chunk
// ends, so an insertion moves few ends. EROFS begins files at blocks, and chunks are cut at
// blocks, too.
const (
	chunkBlock  = 4096 // bytes
	chunkBlocks = 256  // of a chunk on average, which has between a quarter and four times as many
	// Of larger files chunks are larger: a manifest lists each.
	largeFile   = 1 << 30 // bytes
	largeFactor = 4
	maxChunk    = largeFactor * 4 * chunkBlocks * chunkBlock
)

// What a manifest says of a chunk: the bytes that it holds, and their digest.
const (
	chunkSizeAnnotation = "org.lumina.chunk.size"
	chunkSumAnnotation  = "org.lumina.chunk.sha256"
)

// eachChunk cuts what r holds, as it is done for a file of size bytes. The content is
// do's until it returns.
func eachChunk(ctx context.Context, r io.Reader, size int64, do func(content []byte) error) error {
	blocks := chunkBlocks
	if size > largeFile {
		blocks *= largeFactor
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, 0, 4*blocks*chunkBlock)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		block := buf[len(buf) : len(buf)+chunkBlock]
		n, err := io.ReadFull(r, block)
		buf = buf[:len(buf)+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		if end && len(buf) == 0 {
			return nil
		}
		cut := len(buf) >= blocks/4*chunkBlock && crc32.Checksum(block[:n], table)%uint32(blocks) == 0
		if end || cut || len(buf) == cap(buf) {
			if err := do(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		if end {
			return nil
		}
	}
}

// compressChunks writes the chunks of a file, each compressed, into one without a name
// in dir, to be closed. The same content gives the same bytes.
func compressChunks(ctx context.Context, name, from, dir string) (blobs []oci.Blob, out *os.File, err error) {
	in, err := os.Open(from)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, nil, err
	}
	if out, err = unnamed(dir); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, nil, err
	}
	defer z.Close()
	at := int64(0)
	var packed []byte
	err = eachChunk(ctx, in, info.Size(), func(content []byte) error {
		packed = z.EncodeAll(content, packed[:0])
		if _, err := out.Write(packed); err != nil {
			return err
		}
		digest, size, err := v1.SHA256(bytes.NewReader(packed))
		if err != nil {
			return err
		}
		part := io.NewSectionReader(out, at, size)
		at += size
		blobs = append(blobs, oci.Blob{Name: name, MediaType: artifactFileType, Digest: digest, Size: size,
			Annotations: map[string]string{chunkSizeAnnotation: strconv.Itoa(len(content)), chunkSumAnnotation: sumOf(content)},
			Open:        func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(part, 0, size)), nil }})
		return nil
	})
	return blobs, out, err
}

// unnamed makes a file without a name in dir.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "push-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// remoteChunk is a chunk that a manifest lists.
type remoteChunk struct {
	blob oci.Blob
	size int64
	sum  string
}

// chunksOf reads what a manifest says of the chunks of a file of size bytes.
func chunksOf(blobs []oci.Blob, size int64) ([]remoteChunk, error) {
	var chunks []remoteChunk
	left := size
	for _, b := range blobs {
		n, err := strconv.ParseInt(b.Annotations[chunkSizeAnnotation], 10, 64)
		sum := b.Annotations[chunkSumAnnotation]
		if raw, hexErr := hex.DecodeString(sum); err != nil || hexErr != nil || len(raw) != sha256.Size || n < 1 || n > maxChunk || n > left {
			return nil, fmt.Errorf("%w: a chunk of %.40q bytes, sha256 %.80q", oci.ErrInvalid, b.Annotations[chunkSizeAnnotation], sum)
		}
		left -= n
		chunks = append(chunks, remoteChunk{b, n, sum})
	}
	if left != 0 {
		return nil, fmt.Errorf("%w: chunks of %d bytes for a file of %d", oci.ErrInvalid, size-left, size)
	}
	return chunks, nil
}
