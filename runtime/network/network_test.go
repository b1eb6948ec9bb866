//go:build linux

package network

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

func TestStackDoesNotLog(t *testing.T) {
	newGuest(t, Policy{})
	if e := log.Log().Emitter; e != (discard{}) {
		t.Errorf("the stack logs to a %T", e)
	}
}

func TestLargeTransfersBothWays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	g := newGuestOf(t, NAT(false), func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	c, err := g.connect("198.51.100.99:7")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		_, _ = c.Write(data)
		_ = c.(*guestConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}
}
