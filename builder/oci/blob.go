package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/runtime/pace"
)

// blobReader reads a blob over as many connections as it takes. It may be closed while
// it is read, which ends that.
type blobReader struct {
	ctx    context.Context // ends the reading
	stop   context.CancelCauseFunc
	d      v1.Descriptor
	period time.Duration // see package pace
	open   func(ctx context.Context, from int64) (*http.Response, error)

	mu     sync.Mutex // of what follows
	body   io.ReadCloser
	in     io.Reader // body, as long as it comes fast enough
	cancel context.CancelCauseFunc
	hash   hash.Hash
	done   int64
	// breaks counts the connections that broke since so many bytes had come.
	breaks int
	since  int64
	err    error
}

const (
	// maxBreaks is how many connections may break in a row.
	maxBreaks = 6
	// enough is how much has to come for a connection not to count, in bytes.
	enough = 1 << 20
)

func newBlobReader(ctx context.Context, d v1.Descriptor, open func(ctx context.Context, from int64) (*http.Response, error)) *blobReader {
	ctx, stop := context.WithCancelCause(ctx)
	return &blobReader{ctx: ctx, stop: stop, d: d, period: idleTimeout, open: open, hash: sha256.New()}
}

func (b *blobReader) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil {
		if b.body == nil {
			b.err = b.connect()
			continue
		}
		n, err := b.in.Read(p)
		b.hash.Write(p[:n])
		b.done += int64(n)
		switch {
		case b.done > b.d.Size:
			b.err = fmt.Errorf("%w: blob %s has more than its %d bytes", ErrInvalid, b.d.Digest, b.d.Size)
		case err != nil && b.done == b.d.Size:
			b.err = b.end() // all of it has come, whatever ended the connection
		case err != nil:
			b.err = b.broken(err)
		}
		if n > 0 {
			return n, nil // the error comes next
		}
	}
	return 0, b.err
}

// end is io.EOF for what is what it should be.
func (b *blobReader) end() error {
	if got := hex.EncodeToString(b.hash.Sum(nil)); got != b.d.Digest.Hex {
		return fmt.Errorf("%w: blob %s has digest sha256:%s", ErrInvalid, b.d.Digest, got)
	}
	return io.EOF
}

// connect asks for what is missing.
func (b *blobReader) connect() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	resp, err := b.open(ctx, b.done)
	if err == nil && resp.StatusCode == http.StatusPartialContent && !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.done)) {
		resp.Body.Close()
		err = fmt.Errorf("%w: the server sends the range %.80q, asked for was %d-", ErrInvalid, resp.Header.Get("Content-Range"), b.done)
	}
	if err != nil {
		cancel(nil)
		return explain(err)
	}
	b.cancel, b.body = cancel, resp.Body
	b.in = pace.NewReader(resp.Body, b.period, func(slow error) { cancel(slow) })
	if resp.StatusCode == http.StatusOK && b.done > 0 {
		// All of it once more, asked for or not.
		if _, err := io.CopyN(io.Discard, b.in, b.done); err != nil {
			return b.broken(err)
		}
	}
	return nil
}

// broken is why a broken connection is the last one; nil when it is not.
func (b *blobReader) broken(why error) error {
	b.disconnect()
	if err := context.Cause(b.ctx); err != nil {
		return err
	}
	if b.done-b.since >= enough {
		b.breaks, b.since = 0, b.done
	}
	if b.breaks++; b.breaks >= maxBreaks {
		if errors.Is(why, io.EOF) {
			why = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("blob %s is cut off after %d of %d bytes, %d times: %w", b.d.Digest, b.done, b.d.Size, b.breaks, why)
	}
	return pace.Wait(b.ctx, pauseBefore(b.breaks))
}

func (b *blobReader) disconnect() {
	if b.body != nil {
		b.cancel(nil)
		b.body.Close()
		b.body = nil
	}
}

var errBlobClosed = errors.New("the blob is closed")

func (b *blobReader) Close() error {
	b.stop(errBlobClosed)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disconnect()
	if b.err == nil {
		b.err = errBlobClosed
	}
	return nil
}
