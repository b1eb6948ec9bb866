package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/flatten"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/uncompress"
)

var errDigest = errors.New("the layer is not what its digest says")

// layerStream is a layer that is being read and uncompressed, in a goroutine of its
// own, a little ahead of who applies it.
type layerStream struct {
	layer  oci.Layer
	ctx    context.Context // of its reading
	cancel context.CancelCauseFunc
	ahead  *aheadReader
	stored *digester    // of what is stored; nil when it could not be opened
	source *aheadReader // reads stored
	close  []func() error
	err    error // of its opening
}

// beginLayer begins to read a layer; end ends that.
func beginLayer(ctx context.Context, l oci.Layer, progress func(Progress)) *layerStream {
	s := &layerStream{layer: l}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.ahead = readAhead(s.ctx, aheadSize, func() (io.Reader, error) {
		var plain io.Reader
		plain, s.err = s.open(progress)
		return plain, s.err
	})
	return s
}

func (s *layerStream) open(progress func(Progress)) (io.Reader, error) {
	r, err := s.layer.Open(s.ctx)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, r.Close)
	stored := &digester{r: r, hash: sha256.New()}
	stored.report = func(done int64) {
		progress(Progress{Step: "unpack", Item: s.layer.DiffID.String(), Done: done, Total: max(s.layer.Size, 0)})
	}
	s.stored = stored
	// Decompression takes longest, so its goroutine does nothing else.
	s.source = readAhead(s.ctx, storedSize, func() (io.Reader, error) { return stored, nil })
	plain, err := uncompress.Reader(s.source)
	if err != nil {
		return nil, unexpected(err)
	}
	s.close = append(s.close, plain.Close)
	return plain, nil
}

// end ends the reading, which may be far from done.
func (s *layerStream) end(why error) {
	s.cancel(why)
	<-s.ahead.done
	if s.source != nil {
		<-s.source.done
	}
	for _, close := range slices.Backward(s.close) {
		_ = close() // it was read
	}
	s.close = nil
}

// apply puts the layer into the tree. Both digests, of what is stored and of what it
// holds, are computed on the way and compared at its end.
func (s *layerStream) apply(ctx context.Context, tree *flatten.Tree) error {
	content := &digester{r: s.ahead, hash: sha256.New()}
	err := tree.Apply(ctx, content)
	if err == nil {
		// An archive may end before its stream does.
		_, err = io.Copy(io.Discard, content)
	}
	if err != nil {
		s.ahead.stop()
	}
	<-s.ahead.done
	if ctx.Err() != nil {
		return context.Cause(ctx) // what is left to read may be gigabytes
	}
	if s.err != nil {
		return s.err
	}
	if _, drainErr := io.Copy(io.Discard, s.source); err == nil {
		err = drainErr
	}
	<-s.source.done
	// Wrong bytes explain whatever else went wrong.
	l := s.layer
	if l.Digest != (v1.Hash{}) && s.stored.sum() != l.Digest.Hex {
		wrong := fmt.Errorf("%w: stored as sha256:%s, it has sha256:%s", errDigest, l.Digest.Hex, s.stored.sum())
		if err != nil {
			wrong = fmt.Errorf("%w; %w", wrong, unexpected(err))
		}
		return wrong
	}
	if l.Digest != (v1.Hash{}) && l.Size >= 0 && l.Size != s.stored.done {
		return fmt.Errorf("%w: it has %d bytes, and its descriptor says %d", errDigest, s.stored.done, l.Size)
	}
	if err == nil && content.sum() != l.DiffID.Hex {
		return fmt.Errorf("%w: it should hold sha256:%s and holds sha256:%s", errDigest, l.DiffID.Hex, content.sum())
	}
	return unexpected(err)
}

// unexpected says in words what io.ErrUnexpectedEOF means for a layer.
func unexpected(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("the layer is cut off: %w", err)
	}
	return err
}

// digester hashes what is read through it.
type digester struct {
	r      io.Reader
	hash   hash.Hash
	done   int64
	report func(done int64)
}

func (d *digester) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.hash.Write(p[:n])
	d.done += int64(n)
	if d.report != nil {
		d.report(d.done)
	}
	return n, err
}

func (d *digester) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// What is uncompressed ahead of who writes it: of a layer that is being applied and
// of the next one, which can be small and whole then.
const (
	aheadBuffers = 8
	aheadSize    = 512 << 10 // bytes
	storedSize   = 128 << 10 // of what is still compressed
)

// aheadReader reads in a goroutine of its own, a few buffers ahead.
type aheadReader struct {
	full  chan []byte
	empty chan []byte
	stop  func()        // it reads no further
	done  chan struct{} // closed when the goroutine has ended
	err   error         // set before full is closed
	rest  []byte
	whole []byte
}

// readAhead reads what open opens, into buffers of a size, until ctx ends.
func readAhead(ctx context.Context, size int, open func() (io.Reader, error)) *aheadReader {
	ctx, stop := context.WithCancel(ctx)
	a := &aheadReader{full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers), stop: stop, done: make(chan struct{})}
	for range aheadBuffers {
		a.empty <- nil // made when it is needed
	}
	go func() {
		defer close(a.done)
		defer close(a.full)
		r, err := open()
		for err == nil {
			var buf []byte
			select {
			case buf = <-a.empty:
			case <-ctx.Done():
				a.err = context.Cause(ctx)
				return
			}
			if buf == nil {
				buf = make([]byte, size)
			}
			n := 0
			for n < len(buf) && err == nil {
				var m int
				m, err = r.Read(buf[n:])
				n += m
			}
			if n > 0 {
				a.full <- buf[:n] // never blocks: there are as many places as buffers
			}
		}
		a.err = err
	}()
	return a
}

func (a *aheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.whole != nil {
			a.empty <- a.whole[:cap(a.whole)]
			a.whole = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.whole, a.rest = buf, buf
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// OpenLayer opens a layer uncompressed. What is read is not compared with the
// layer's digests.
func OpenLayer(ctx context.Context, l oci.Layer) (io.ReadCloser, error) {
	r, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := uncompress.Reader(r)
	if err != nil {
		r.Close()
		return nil, unexpected(err)
	}
	return &opened{plain, r}, nil
}

// opened is a stream that is uncompressed from another.
type opened struct {
	io.ReadCloser
	stored io.Closer
}

func (o *opened) Close() error { return errors.Join(o.ReadCloser.Close(), o.stored.Close()) }
