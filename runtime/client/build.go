package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Unpack writes a tar archive into the guest. conn is closed.
func Unpack(ctx context.Context, conn net.Conn, u *protocol.Unpack, archive io.Reader) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	w := protocol.NewWriter(conn)
	if err := w.Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpUnpack, Unpack: u}); err != nil {
		return withCause(ctx, err)
	}
	// A guest that gives up says why and drops the stream: its word explains
	// the failure to send.
	sendErr := sendArchive(w, archive)
	if errors.Is(sendErr, errArchive) {
		return withCause(ctx, sendErr)
	}
	err := protocol.NewReader(conn).Expect(protocol.FrameReply, nil)
	if sendErr != nil && !isRefusal(err) {
		err = sendErr
	}
	return withCause(ctx, err)
}

// errArchive is wrapped when the archive could not be read.
var errArchive = errors.New("reading the archive")

func sendArchive(w *protocol.Writer, archive io.Reader) error {
	frame := make([]byte, protocol.HeaderSize+protocol.MaxData)
	for {
		n, err := io.ReadFull(archive, frame[protocol.HeaderSize:])
		if n > 0 {
			if err := w.Data(protocol.FrameStdin, frame[:protocol.HeaderSize+n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return w.Data(protocol.FrameStdinClose, frame[:protocol.HeaderSize])
		case err != nil:
			return fmt.Errorf("%w: %w", errArchive, err)
		}
	}
}

// NextLayer ends every process of the guest and begins a layer. conn is closed.
func NextLayer(ctx context.Context, conn net.Conn, l *protocol.Layer) error {
	return call(ctx, conn, &protocol.Request{Op: protocol.OpLayer, Layer: l}, nil)
}
