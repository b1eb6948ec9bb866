package pace

import (
	"context"
	"io"
	"time"
)

// Counter reads from R and reports how much came.
type Counter struct {
	R      io.Reader
	Done   int64 // bytes read so far; what an earlier try brought may be counted in
	Report func(done int64)
}

func (c *Counter) Read(b []byte) (int, error) {
	n, err := c.R.Read(b)
	c.Done += int64(n)
	c.Report(c.Done)
	return n, err
}

// Wait waits for d, or returns the cause when ctx ends first.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
