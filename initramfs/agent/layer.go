//go:build linux

package agent

import (
	"bufio"
	"fmt"
	"io"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// unpack writes the archive that the host sends.
func (s *Server) unpack(req *protocol.Unpack, r *protocol.Reader, w *protocol.Writer) error {
	archive := bufio.NewReaderSize(&stdinReader{r: r}, protocol.MaxData)
	if err := s.system.Unpack(req, archive); err != nil {
		return fmt.Errorf("unpacking an archive: %w", err)
	}
	// A tar archive may end before the host has sent all of its padding.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	return w.Message(protocol.FrameReply, nil)
}

// stdinReader reads what Stdin frames hold.
type stdinReader struct {
	r    *protocol.Reader
	rest []byte
	end  bool
}

func (s *stdinReader) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.end {
			return 0, io.EOF
		}
		t, payload, err := s.r.Next()
		switch {
		case err != nil:
			return 0, err
		case t == protocol.FrameStdin:
			s.rest = payload
		case t == protocol.FrameStdinClose:
			s.end = true
		default:
			return 0, protocol.ErrMalformed
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
