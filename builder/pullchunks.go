package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

const (
	// fetchers is how many chunks are fetched at once.
	fetchers = 4
	// maxLookedThrough is how much of the images that are here is looked through for
	// chunks, in multiples of what is pulled.
	maxLookedThrough = 8
)

// chunkPull makes a file of the chunks of an artifact. What an image of the store has
// is taken from there. What is fetched is kept in the cache until the file is whole: a
// pull that was interrupted goes on.
type chunkPull struct {
	o       *PullOptions
	ctx     context.Context
	cancel  context.CancelCauseFunc
	chunks  []remoteChunk
	local   map[string]localChunk // by the digest of the content
	fetched []chan oci.Layer      // gets one of each chunk that is not local
	working sync.WaitGroup
	total   int64 // bytes of all blobs
}

// localChunk is where an image that is here has a chunk.
type localChunk struct {
	root *os.File
	at   int64
}

// pullChunks makes a file.
func (o *PullOptions) pullChunks(ctx context.Context, blobs []oci.Blob, to string, want image.File) error {
	chunks, err := chunksOf(blobs, want.Size)
	if err != nil {
		return err
	}
	p := &chunkPull{o: o, chunks: chunks, local: map[string]localChunk{}, fetched: make([]chan oci.Layer, len(chunks))}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	closeRoots := p.lookThrough(want.Size)
	defer closeRoots()
	for n, c := range chunks {
		p.total += c.blob.Size
		p.fetched[n] = make(chan oci.Layer, 1)
	}
	p.working.Go(p.fetch)
	err = p.write(to, want)
	if err != nil {
		p.cancel(err)
		err = context.Cause(p.ctx) // which may be what a fetcher found
	}
	p.working.Wait()
	p.cancel(nil)
	if err != nil {
		return err
	}
	return p.forget()
}

// lookThrough finds chunks in the roots of images that are here: first in the one that
// is to be replaced, then in the youngest.
func (p *chunkPull) lookThrough(size int64) (closeRoots func()) {
	wanted := map[string]bool{}
	for _, c := range p.chunks {
		wanted[c.sum] = true
	}
	var handles []*image.Handle
	var roots []*os.File
	closeRoots = func() {
		for _, r := range roots {
			r.Close()
		}
	}
	names, _ := p.o.Store.List() // without, all is fetched
	for _, name := range names {
		if h, err := p.o.Store.Open(name); err == nil {
			handles = append(handles, h)
		}
	}
	slices.SortStableFunc(handles, func(a, b *image.Handle) int {
		if (a.Name == p.o.Name) != (b.Name == p.o.Name) {
			if a.Name == p.o.Name {
				return -1
			}
			return 1
		}
		return b.Created.Compare(a.Created)
	})
	left := maxLookedThrough * size
	for _, h := range handles {
		if n := h.Files[image.Rootfs].Size; h.Architecture == p.o.Architecture && len(wanted) > 0 && n <= left {
			if root, err := h.Open(image.Rootfs); err == nil {
				left -= n
				roots = append(roots, root)
				at := int64(0)
				_ = eachChunk(p.ctx, root, size, func(content []byte) error { // what was found is used
					if sum := sumOf(content); wanted[sum] {
						delete(wanted, sum)
						p.local[sum] = localChunk{root, at}
					}
					at += int64(len(content))
					return nil
				})
			}
		}
		h.Close()
	}
	return closeRoots
}

// fetch fetches what is not here, several at once, into the cache.
func (p *chunkPull) fetch() {
	slots := make(chan struct{}, fetchers)
	for n, c := range p.chunks {
		if _, here := p.local[c.sum]; here {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		p.working.Go(func() {
			defer func() { <-slots }()
			l, err := oci.KeepLayer(p.ctx, p.o.CacheDir, oci.Layer{Digest: c.blob.Digest, Size: c.blob.Size,
				Open: func(context.Context) (io.ReadCloser, error) { return c.blob.Open() }})
			if err != nil {
				p.cancel(err)
				return
			}
			p.fetched[n] <- l
		})
	}
}

// write writes the chunks in their order. No byte more is written than the file has.
func (p *chunkPull) write(to string, want image.File) error {
	out, err := durable.Create(to, image.FileMode)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := sha256.New()
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxChunk+1<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	largest := int64(0)
	for _, c := range p.chunks {
		largest = max(largest, c.size)
	}
	buf := make([]byte, largest+1)
	done := int64(0)
	for n, c := range p.chunks {
		content := buf[:c.size]
		if here, ok := p.local[c.sum]; ok {
			_, err = here.root.ReadAt(content, here.at)
		} else {
			content, err = p.unpack(n, z, buf[:c.size+1])
		}
		if err != nil {
			return err
		}
		if sumOf(content) != c.sum {
			return fmt.Errorf("%w: a chunk does not hold what it should", image.ErrInvalid)
		}
		sum.Write(content)
		if _, err := out.Write(content); err != nil {
			return err
		}
		done += c.blob.Size
		p.o.Progress(Progress{Step: "fetch", Item: "sha256:" + want.SHA256, Done: done, Total: p.total})
	}
	if hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("%w: it is not what image.json says", image.ErrInvalid)
	}
	return out.Close()
}

// unpack waits for a chunk and uncompresses it into a buffer with room for a byte more
// than it should have.
func (p *chunkPull) unpack(n int, z *zstd.Decoder, buf []byte) ([]byte, error) {
	var l oci.Layer
	select {
	case l = <-p.fetched[n]:
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	}
	r, err := l.Open(p.ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := z.Reset(r); err != nil {
		return nil, err
	}
	read, err := io.ReadFull(z, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // its size is compared with its digest
	}
	return buf[:read], err
}

// forget removes from the cache what the file has now.
func (p *chunkPull) forget() error {
	for _, c := range p.chunks {
		if _, here := p.local[c.sum]; !here {
			if err := oci.Forget(p.o.CacheDir, c.blob.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}
