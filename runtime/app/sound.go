package app

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/coder/websocket"
)

// What a desktop plays comes over a second connection of its screen's protocol, RFB
// (RFC 6143), by QEMU's extension for sound: docs/interop/vnc-audio in its sources, and
// "QEMU Audio" in the community's rfbproto. No picture is asked for there.

// The sound's format: 16 bits with a sign, the low byte first.
const (
	soundRate     = 48000
	soundChannels = 2
	soundFormat   = 3 // S16
)

// SoundFormat is the first message of a desktop's sound.
type SoundFormat struct {
	Rate     int `json:"rate"`
	Channels int `json:"channels"`
}

// maxSound bounds a message of sound: two seconds of it are 384 KB.
const maxSound = 1 << 20

// maxSkipped bounds what is skipped of one message, such as the desktop's name.
const maxSkipped = 1 << 20

const (
	rfbSharesScreen = 1
	rfbNoSecurity   = 1
	rfbUpdate       = 0
	rfbBell         = 2
	rfbCutText      = 3
	rfbQEMU         = 255
	qemuAudio       = 1
	encodingAudio   = -259
	audioData       = 2
)

// rfbListen asks for sound: the encoding (SetEncodings), its format, and that it begins.
var rfbListen = slices.Concat(
	[]byte{2, 0, 0, 1}, be32(encodingAudio),
	[]byte{rfbQEMU, qemuAudio, 0, 2, soundFormat, soundChannels}, be32(soundRate),
	[]byte{rfbQEMU, qemuAudio, 0, 0},
)

func be32(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// sound sends what a desktop plays, and nothing while it plays nothing. QEMU leaves out
// what a page does not take in time.
func (s *server) sound(w http.ResponseWriter, r *http.Request) {
	ws, ctx, screen, ended := s.viewer(w, r)
	if screen == nil {
		return
	}
	defer ended()
	defer screen.Close()
	ctx = ws.CloseRead(ctx)
	defer context.AfterFunc(ctx, func() { screen.Close() })()
	if writeText(ctx, ws, SoundFormat{soundRate, soundChannels}) != nil {
		return
	}
	err := hear(screen, func(b []byte) error { return ws.Write(ctx, websocket.MessageBinary, b) })
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		_ = ws.Close(websocket.StatusNormalClosure, "")
		return
	}
	_ = ws.Close(websocket.StatusInternalError, short(err))
}

// hear greets a server of RFB and calls send with the sound that it sends, until one of
// them fails.
func hear(conn io.ReadWriter, send func([]byte) error) error {
	r := bufio.NewReader(conn)
	if err := greet(r, conn); err != nil {
		return fmt.Errorf("asking for its sound: %w", err)
	}
	if _, err := conn.Write(rfbListen); err != nil {
		return err
	}
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return err
		}
		switch kind {
		case rfbBell:
		case rfbUpdate:
			err = skipUpdate(r)
		case rfbCutText:
			if _, err = r.Discard(3); err == nil {
				err = skip(r)
			}
		case rfbQEMU:
			err = hearMessage(r, send)
		default:
			err = fmt.Errorf("unexpected message %d from the screen's server", kind)
		}
		if err != nil {
			return err
		}
	}
}

// greet goes through the handshake of RFB 3.8, without security: the connection is this
// program's own.
func greet(r *bufio.Reader, w io.Writer) error {
	const version = "RFB 003.008\n"
	theirs := make([]byte, len(version))
	if _, err := io.ReadFull(r, theirs); err != nil {
		return err
	}
	if !strings.HasPrefix(string(theirs), "RFB 003.") {
		return fmt.Errorf("it speaks %q", theirs)
	}
	if _, err := io.WriteString(w, version); err != nil {
		return err
	}
	n, err := r.ReadByte()
	if err != nil {
		return err
	}
	kinds := make([]byte, n)
	if _, err := io.ReadFull(r, kinds); err != nil {
		return err
	}
	if !slices.Contains(kinds, rfbNoSecurity) {
		return errors.New("it wants a password")
	}
	if _, err := w.Write([]byte{rfbNoSecurity}); err != nil {
		return err
	}
	if refused, err := read32(r); err != nil || refused != 0 {
		return errors.Join(err, errors.New("it refuses"))
	}
	if _, err := w.Write([]byte{rfbSharesScreen}); err != nil {
		return err
	}
	if _, err := r.Discard(20); err != nil { // size and pixels of the screen
		return err
	}
	return skip(r) // its name
}

func read32(r io.Reader) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint32(b[:]), err
}

// skip skips what has its length before it.
func skip(r *bufio.Reader) error {
	n, err := read32(r)
	if err == nil && n > maxSkipped {
		err = fmt.Errorf("%d bytes in one message", n)
	}
	if err == nil {
		_, err = r.Discard(int(n))
	}
	return err
}

// skipUpdate skips a picture that is none: it says that there may be sound.
func skipUpdate(r *bufio.Reader) error {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	for range binary.BigEndian.Uint16(head[1:]) {
		var rectangle [12]byte
		if _, err := io.ReadFull(r, rectangle[:]); err != nil {
			return err
		}
		if encoding := int32(binary.BigEndian.Uint32(rectangle[8:])); encoding != encodingAudio {
			return fmt.Errorf("a picture with encoding %d, which was not asked for", encoding)
		}
	}
	return nil
}

func hearMessage(r *bufio.Reader, send func([]byte) error) error {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if head[0] != qemuAudio {
		return fmt.Errorf("message %d of QEMU's is not sound", head[0])
	}
	if binary.BigEndian.Uint16(head[1:]) != audioData {
		return nil // a beginning, or an end
	}
	n, err := read32(r)
	if err != nil {
		return err
	}
	if n > maxSound {
		return fmt.Errorf("%d bytes of sound at once", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return send(b)
}
