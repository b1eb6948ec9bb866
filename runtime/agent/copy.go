package agent

import (
	"context"
	"fmt"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
)

// CopyIn copies a file or directory of the host into the guest. conn is closed.
func CopyIn(ctx context.Context, conn net.Conn, local string, to *protocol.CopyIn, progress func(protocol.Copied)) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyIn, CopyIn: to}); err != nil {
		return copied, withCause(ctx, err)
	}
	// A guest that gives up says why and drops the stream: its word explains
	// the failure to send.
	_, sendErr := transfer.Send(conn, local, progress)
	err = protocol.NewReader(conn).Expect(protocol.FrameReply, &copied)
	if sendErr != nil && !isRefusal(err) {
		err = fmt.Errorf("copying %s: %w", local, sendErr)
	}
	return copied, withCause(ctx, err)
}

// CopyOut copies a file or directory of the guest to the host. conn is closed.
func CopyOut(ctx context.Context, conn net.Conn, remote, local string, progress func(protocol.Copied)) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyOut, CopyOut: &protocol.CopyOut{Path: remote}}); err != nil {
		return copied, withCause(ctx, err)
	}
	copied, err = transfer.Receive(protocol.NewReader(conn), local, transfer.Options{Progress: progress})
	return copied, withCause(ctx, err)
}
