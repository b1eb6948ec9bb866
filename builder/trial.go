package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Verifier tries an image before it is installed, and takes it over. It may be called
// before the root is written: that is in its place then, longer than it will be, and
// what is read of it means nothing until whole is closed.
type Verifier func(ctx context.Context, img *image.Handle, whole <-chan struct{}) error

// trial is that of an image, beside what is made of it.
type trial struct {
	verify Verifier
	dir    string
	cancel context.CancelCauseFunc // of all that makes the image
	whole  chan struct{}
	wait   func() (struct{}, error) // nil before it has begun
}

// begin begins a trial, once kernel has returned. img is its own.
func (t *trial) begin(ctx context.Context, img *image.Image, kernel func() (image.File, error)) {
	t.wait = background(func() (struct{}, error) {
		_, err := kernel()
		if err == nil {
			var h *image.Handle
			if h, err = image.OpenUnfinished(t.dir, img); err == nil {
				err = t.verify(ctx, h, t.whole)
			}
			if err != nil {
				err = notVerified(err)
			}
		}
		if err != nil {
			t.cancel(err)
		}
		return struct{}{}, err
	})
}

// beginEarly begins a trial whose root is about to be written: its file gets room for
// all that it may become, since the size of a disk is what a VM finds first.
func (t *trial) beginEarly(ctx context.Context, img *image.Image, limit int64, kernel func() (image.File, error)) {
	const unit = 1 << 20
	if t.verify == nil {
		return
	}
	if limit > math.MaxInt64-unit || os.Truncate(filepath.Join(t.dir, image.Rootfs), (limit+unit-1)/unit*unit) != nil {
		return // more than a file here can have: it is tried later
	}
	own := *img
	own.Files = maps.Clone(img.Files)
	t.begin(ctx, &own, kernel)
}

// end ends a trial whose image is not to be, and waits for that.
func (t *trial) end(why error) {
	t.cancel(why)
	if t.wait != nil {
		_, _ = t.wait()
	}
}

// settle ends the trial of an image whose root is written. Meanwhile that gets its
// digest and comes to the disk, and the kernel is written, if it is not yet.
func (t *trial) settle(ctx context.Context, o Options, img *image.Image, kernel func() (image.File, error)) (err error) {
	close(t.whole)
	path := filepath.Join(t.dir, image.Rootfs)
	synced := background(func() (struct{}, error) {
		err := durable.Sync(path)
		if _, kernelErr := kernel(); err == nil && kernelErr == nil {
			err = durable.Sync(filepath.Join(t.dir, image.Kernel))
		}
		return struct{}{}, err
	})
	want, known := img.Files[image.Rootfs]
	digested := background(func() (image.File, error) {
		root, err := image.Digest(ctx, path)
		if err == nil && known && root != want {
			err = fmt.Errorf("%w: %s of image %q was modified after the image was made", image.ErrInvalid, image.Rootfs, o.Reference)
		}
		if err != nil {
			t.cancel(err)
		}
		return root, err
	})
	written, err := kernel()
	if err != nil {
		t.cancel(err)
	}
	img.Files[image.Kernel] = written
	var tried error
	if t.verify != nil && err == nil {
		o.Progress(Progress{Step: "verify"})
		if t.wait == nil {
			t.begin(ctx, img, kernel)
		}
		_, tried = t.wait()
	}
	root, digestErr := digested()
	_, syncErr := synced()
	img.Files[image.Rootfs] = root
	return cmp.Or(context.Cause(ctx), err, digestErr, tried, syncErr) // what was first explains the others
}

// tryWhole tries an image that has all its files.
func tryWhole(ctx context.Context, verify Verifier, progress func(Progress), open func() (*image.Handle, error)) error {
	progress(Progress{Step: "verify"})
	whole := make(chan struct{})
	close(whole)
	h, err := open()
	if err == nil {
		err = verify(ctx, h, whole)
	}
	if err != nil {
		return notVerified(err)
	}
	return nil
}

// ErrTest is wrapped by a Verifier's error when the image boots, and fails a test.
var ErrTest = errors.New("the image fails a test")

func notVerified(err error) error {
	if errors.Is(err, ErrTest) {
		return err
	}
	return fmt.Errorf("the image does not boot: %w", err)
}

// background runs do in a goroutine of its own; what it returns waits for it.
func background[T any](do func() (T, error)) (wait func() (T, error)) {
	wait = sync.OnceValues(do)
	go func() { _, _ = wait() }() // who waits has them
	return wait
}
