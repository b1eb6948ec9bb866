//go:build !linux

package share

import "io"

// Server serves a directory.
type Server struct{}

// Check says nothing: drivers here serve directories by themselves.
func Check(string) error { return nil }

// Open is not possible here.
func Open(string, Options) (*Server, error) { return nil, ErrUnsupported }

// Serve is not possible here.
func (*Server) Serve(io.ReadWriter) error { return ErrUnsupported }

// Close is part of a [Server].
func (*Server) Close() error { return nil }
