package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// readFile reads a file that the command line names, of at most limit bytes. It may be a
// FIFO without a writer, or be on a server that does not answer, so that a system call
// never returns: a signal ends the wait.
func (env *environment) readFile(name string, limit int64) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	read := make(chan result, 1)
	go func() {
		f, err := os.Open(name)
		if err != nil {
			read <- result{nil, err}
			return
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(b)) > limit {
			err = fmt.Errorf("%s: longer than %d bytes", name, limit)
		}
		read <- result{b, err}
	}()
	ctx := env.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	select {
	case r := <-read:
		return r.b, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("reading %s: %w", name, context.Cause(ctx))
	}
}
