package oci

import (
	"fmt"
	"io"
)

// Limit is a writer that takes so many bytes and no more; 0: any number.
func Limit(w io.Writer, limit int64) io.Writer {
	if limit <= 0 {
		return w
	}
	return &limited{w, limit, limit}
}

type limited struct {
	w           io.Writer
	left, limit int64
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, l.limit)
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	return n, err
}
