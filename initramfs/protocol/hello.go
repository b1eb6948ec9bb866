package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A serial port has no connections of its own: each use of it begins with a
// hello from either side, magic and version, before the mux takes over. The
// host may send its hello before the guest has booted.
const (
	helloMagic = "LUMINA"
	helloSize  = len(helloMagic) + 2
)

// ErrVersion is wrapped by the error of a handshake with another version.
var ErrVersion = errors.New("host and guest speak different protocol versions")

// SendHello sends this side's hello.
func SendHello(w io.Writer) error {
	_, err := w.Write(binary.BigEndian.AppendUint16([]byte(helloMagic), Version))
	return err
}

// ReceiveHello reads the peer's hello and compares its version.
func ReceiveHello(r io.Reader) error {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return fmt.Errorf("waiting for the peer's hello: %w", err)
	}
	if string(b[:len(helloMagic)]) != helloMagic {
		return fmt.Errorf("%w: hello is %q", ErrMalformed, b)
	}
	if v := binary.BigEndian.Uint16(b[len(helloMagic):]); v != Version {
		return fmt.Errorf("%w: the peer's is %d, ours %d; make the image again", ErrVersion, v, Version)
	}
	return nil
}
