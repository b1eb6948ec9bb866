// Package agent is the host's side of the guest's agent: it speaks package
// protocol over one stream an operation. It does not know how the stream came
// about.
package agent

import (
	"context"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// call sends a request and waits for its Reply. conn is closed.
func call(ctx context.Context, conn net.Conn, req *protocol.Request, reply any) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req.Version = protocol.Version
	err := protocol.NewWriter(conn).Message(protocol.FrameRequest, req)
	if err == nil {
		err = protocol.NewReader(conn).Expect(protocol.FrameReply, reply)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Configure makes the booted guest the one that c describes.
func Configure(ctx context.Context, conn net.Conn, c *protocol.Configure) (*protocol.Configured, error) {
	reply := new(protocol.Configured)
	return reply, call(ctx, conn, &protocol.Request{Op: protocol.OpConfigure, Configure: c}, reply)
}

// Shutdown ends the guest in order. It returns when everything is on disk; the
// VM ends right after.
func Shutdown(ctx context.Context, conn net.Conn) error {
	return call(ctx, conn, &protocol.Request{Op: protocol.OpShutdown}, new(struct{}))
}
