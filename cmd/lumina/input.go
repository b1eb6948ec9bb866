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
	return env.read(name, limit, func() (*os.File, error) { return os.Open(name) })
}

// readInput is readFile, to which - is standard input.
func (env *environment) readInput(name string, limit int64) ([]byte, error) {
	if name == "-" {
		return env.read("standard input", limit, func() (*os.File, error) { return env.stdin, nil })
	}
	return env.readFile(name, limit)
}

func (env *environment) read(name string, limit int64, open func() (*os.File, error)) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	read := make(chan result, 1)
	go func() {
		f, err := open()
		if err != nil {
			read <- result{nil, err}
			return
		}
		if f != env.stdin {
			defer f.Close()
		}
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
