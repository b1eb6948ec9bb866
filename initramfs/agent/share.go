//go:build linux

package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Of the messages of FUSE: the longest, of either side, and the shortest. Each begins
// with its length in four bytes.
const (
	maxShareMessage = 1<<20 + 4<<10
	minShareMessage = 16
)

// share passes on what a mounted directory's FUSE asks the host, and the answers, until
// either goes. What uses the directory then gets an error.
func (s *Server) share(stream net.Conn, req *protocol.Share, r *protocol.Reader, w *protocol.Writer) error {
	device, err := s.system.Share(req.Tag)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := w.Message(protocol.FrameReply, nil); err != nil {
		return fmt.Errorf("%w: %w", errCancelled, err)
	}
	go func() {
		defer stream.Close()
		b := make([]byte, maxShareMessage)
		for {
			n, err := device.Read(b)
			if err != nil {
				return
			}
			if _, err := stream.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, maxShareMessage)
	in := r.Rest()
	for {
		if _, err := io.ReadFull(in, b[:4]); err != nil {
			return errCancelled
		}
		n := binary.LittleEndian.Uint32(b)
		if n < minShareMessage || n > maxShareMessage {
			return fmt.Errorf("an answer of %d bytes", n)
		}
		if _, err := io.ReadFull(in, b[4:n]); err != nil {
			return errCancelled
		}
		// Nobody may wait for it any more.
		_, _ = device.Write(b[:n])
	}
}
