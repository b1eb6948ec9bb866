package transfer

import (
	"context"
	"os"
	"syscall"
)

// openFIFO opens what may be a FIFO, whose opening waits for another end that
// may never come. The end of ctx ends that wait.
func openFIFO(ctx context.Context, path string, flag int) (*os.File, error) {
	return open(ctx, flag, func(flag int) (*os.File, error) { return os.OpenFile(path, flag, 0) })
}

// open is openFIFO with a way to open of the caller's.
func open(ctx context.Context, flag int, do func(flag int) (*os.File, error)) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := do(flag)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done():
	}
	// The other end, opened without waiting, lets the opening return.
	other := os.O_WRONLY
	if flag&os.O_WRONLY != 0 {
		other = os.O_RDONLY
	}
	if f, err := do(other | syscall.O_NONBLOCK); err == nil {
		if o := <-done; o.err == nil {
			o.f.Close()
		}
		f.Close()
	}
	return nil, context.Cause(ctx)
}
