package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// HeaderSize is the length of a frame's header: type (1 byte) and payload
	// length (4 bytes, big endian).
	HeaderSize = 5
	// MaxData is the longest payload of a data frame, in bytes.
	MaxData = 64 << 10
	// MaxMessage is the longest JSON payload, in bytes. It bounds a command
	// line and its environment, like the kernel's own limit does.
	MaxMessage = 4 << 20
	// StdinWindow is how many bytes of standard input a host may send ahead
	// of the process, so that the agent never stops reading frames.
	StdinWindow = 256 << 10
	// maxSignal is the highest signal of Linux.
	maxSignal = 64
)

// FrameType says what a frame's payload is.
type FrameType uint8

// Frames from the host.
const (
	FrameRequest    FrameType = 1 + iota // Request
	FrameStdin                           // data
	FrameStdinClose                      // empty: end of standard input
	FrameResize                          // JSON TerminalSize: the terminal's new size
	FrameClock                           // 8 bytes, big endian: nanoseconds since 1970
	FrameSignal                          // 1 byte: a signal for the process's group
)

// Frames from the guest.
const (
	FrameReply       FrameType = 64 + iota // a message that depends on the operation
	FrameError                             // JSON Error; the last frame
	FrameStdout                            // data
	FrameStderr                            // data
	FrameStdinCredit                       // 4 bytes, big endian: so much more standard input may be sent
	FrameExit                              // Exit; the last frame
)

// limit is the longest payload of a frame of type t; -1 when there is none.
func (t FrameType) limit() int {
	switch t {
	case FrameRequest, FrameReply, FrameError, FrameExit, FrameResize, FrameEnd:
		return MaxMessage
	case FrameStdin, FrameStdout, FrameStderr, FrameChunk, FrameEntry:
		return MaxData
	case FrameHole, FrameClock:
		return 8
	case FrameStdinClose, FrameDrop:
		return 0
	case FrameSignal:
		return 1
	case FrameStdinCredit:
		return 4
	}
	return -1
}

// Frames of a tree of files, in either direction; see package transfer.
const (
	FrameEntry FrameType = 32 + iota // binary: the next file, directory or link
	FrameChunk                       // data of the file; empty at its end
	FrameHole                        // 8 bytes, big endian: so many zeros of the file
	FrameEnd                         // JSON Copied: there is no more
	FrameDrop                        // empty: the file cannot be read to its end
)

// ErrMalformed is wrapped by errors about frames that break the format.
var ErrMalformed = errors.New("malformed frame")

// Writer writes frames. Its methods may be called by several goroutines.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter makes a Writer; every frame is one Write to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Message sends v as the payload of a frame; see binary.go.
func (w *Writer) Message(t FrameType, v any) error {
	frame, err := message(t, v)
	if err != nil {
		return err
	}
	return w.Data(t, frame)
}

// Last sends v as the payload of the last frame, and closes what it writes
// to in the same go, where the transport can; else that is left to the caller.
func (w *Writer) Last(t FrameType, v any) error {
	frame, err := message(t, v)
	if err != nil {
		return err
	}
	c, ok := w.w.(interface{ WriteClose([]byte) error })
	if !ok {
		return w.Data(t, frame)
	}
	seal(t, frame)
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.WriteClose(frame)
}

// message lays out a frame.
func message(t FrameType, v any) ([]byte, error) {
	frame, err := appendMessage(make([]byte, HeaderSize, 256), v)
	if err != nil {
		return nil, fmt.Errorf("encoding message: %w", err)
	}
	if n := len(frame) - HeaderSize; n > t.limit() {
		return nil, fmt.Errorf("message of %d bytes is longer than %d", n, t.limit())
	}
	return frame, nil
}

func seal(t FrameType, frame []byte) {
	frame[0] = byte(t)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-HeaderSize))
}

// Data sends a frame that the caller has laid out: HeaderSize bytes, which
// Data fills in, and then the payload.
func (w *Writer) Data(t FrameType, frame []byte) error {
	seal(t, frame)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(frame)
	return err
}

// Raw copies frames that were written by a Writer before.
func (w *Writer) Raw(frames io.Reader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := io.Copy(w.w, frames)
	return err
}

// Credit sends a StdinCredit frame.
func (w *Writer) Credit(n int) error {
	return w.Data(FrameStdinCredit, binary.BigEndian.AppendUint32(make([]byte, HeaderSize), uint32(n)))
}

// Reader reads frames.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader makes a Reader.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 4<<10)} }

// Next reads one frame. The payload is valid until the next call. It returns
// io.EOF between frames, io.ErrUnexpectedEOF inside one, and an error that
// wraps ErrMalformed when the frame has an unknown type or is too long.
func (r *Reader) Next() (FrameType, []byte, error) {
	var header [HeaderSize]byte
	if _, err := io.ReadFull(r.r, header[:]); err != nil {
		return 0, nil, err
	}
	t, n := FrameType(header[0]), binary.BigEndian.Uint32(header[1:])
	switch limit := t.limit(); {
	case limit < 0:
		return 0, nil, fmt.Errorf("%w: unknown type %d", ErrMalformed, t)
	case n > uint32(limit):
		return 0, nil, fmt.Errorf("%w: %d bytes in a frame of type %d", ErrMalformed, n, t)
	}
	if int(n) > cap(r.buf) {
		r.buf = make([]byte, n)
	}
	payload := r.buf[:n]
	if _, err := io.ReadFull(r.r, payload); err != nil {
		return 0, nil, noEOF(err)
	}
	return t, payload, nil
}

// Rest is what follows the frames that were read: some operations go on with
// raw bytes.
func (r *Reader) Rest() io.Reader { return r.r }

// Expect reads a frame of type t into v, and turns an Error frame into its
// error.
func (r *Reader) Expect(t FrameType, v any) error {
	got, payload, err := r.Next()
	if err != nil {
		return noEOF(err)
	}
	switch got {
	case t:
		return Decode(payload, v)
	case FrameError:
		return DecodeError(payload)
	}
	return fmt.Errorf("%w: type %d where %d was due", ErrMalformed, got, t)
}

// DecodeError reads the payload of an Error frame as an error.
func DecodeError(payload []byte) error {
	e := new(Error)
	if err := Decode(payload, e); err != nil {
		return err
	}
	if len(e.Message) > maxErrorText {
		e.Message = strings.ToValidUTF8(e.Message[:maxErrorText], "") + "…"
	}
	return e
}

// maxErrorText is how much of an error's text is kept, in bytes: it is for a person.
const maxErrorText = 4 << 10

// DecodeCredit reads the payload of a StdinCredit frame.
func DecodeCredit(payload []byte) (int, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("%w: credit of %d bytes", ErrMalformed, len(payload))
	}
	n := binary.BigEndian.Uint32(payload)
	if n > StdinWindow {
		return 0, fmt.Errorf("%w: credit for %d bytes", ErrMalformed, n)
	}
	return int(n), nil
}

// Signal sends a Signal frame.
func (w *Writer) Signal(s syscall.Signal) error {
	return w.Data(FrameSignal, append(make([]byte, HeaderSize), byte(s)))
}

// DecodeSignal reads the payload of a Signal frame.
func DecodeSignal(payload []byte) (syscall.Signal, error) {
	if len(payload) != 1 || payload[0] < 1 || payload[0] > maxSignal {
		return 0, fmt.Errorf("%w: signal %v", ErrMalformed, payload)
	}
	return syscall.Signal(payload[0]), nil
}

// Clock sends a Clock frame.
func (w *Writer) Clock(t time.Time) error {
	return w.Data(FrameClock, binary.BigEndian.AppendUint64(make([]byte, HeaderSize), uint64(t.UnixNano())))
}

// Clock reads a Clock frame.
func (r *Reader) Clock() (time.Time, error) {
	t, payload, err := r.Next()
	if err != nil {
		return time.Time{}, noEOF(err)
	}
	if t != FrameClock || len(payload) != 8 {
		return time.Time{}, fmt.Errorf("%w: type %d where the clock was due", ErrMalformed, t)
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(payload))), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
