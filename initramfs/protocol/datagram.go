package protocol

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MaxDatagram is the most that a datagram has, in bytes: what UDP over IPv4 carries.
const MaxDatagram = 65507

// WriteDatagram sends a datagram on a stream of OpDatagrams: its length in two
// bytes, and its bytes.
func WriteDatagram(w io.Writer, b []byte) error {
	if len(b) > MaxDatagram {
		return fmt.Errorf("%w: datagram of %d bytes", ErrMalformed, len(b))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
	return err
}

// ReadDatagram receives one into b, which has room for MaxDatagram.
func ReadDatagram(r io.Reader, b []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > MaxDatagram || n > len(b) {
		return 0, fmt.Errorf("%w: datagram of %d bytes", ErrMalformed, n)
	}
	_, err := io.ReadFull(r, b[:n])
	return n, noEOF(err)
}
