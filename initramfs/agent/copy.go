//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
)

// copyIn writes the files that the host sends.
func copyIn(req *protocol.CopyIn, r *protocol.Reader, w *protocol.Writer) error {
	if !path.IsAbs(req.Path) {
		return &protocol.Error{Code: protocol.CodeRequest, Message: fmt.Sprintf("%q is not an absolute path of the guest", req.Path)}
	}
	o := transfer.Options{Trusted: true, Content: req.Content, Preserve: req.Preserve}
	if req.User != "" {
		who, err := lookupUser(req.User)
		if err != nil {
			return err
		}
		o.Owner = &transfer.Owner{UID: int(who.uid), GID: int(who.gid)}
	}
	copied, err := transfer.Receive(context.Background(), r, req.Path, o)
	if err != nil {
		return err // which names the file
	}
	return w.Message(protocol.FrameReply, copied)
}

// copyOut sends files of the guest.
func copyOut(conn net.Conn, req *protocol.CopyOut) error {
	// Send has told the host what went wrong.
	if _, err := transfer.Send(context.Background(), conn, req.Path, transfer.SendOptions{}); err != nil {
		return errors.Join(errCancelled, err)
	}
	return nil
}
