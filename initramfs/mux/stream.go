package mux

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Stream is one ordered, flow-controlled, full-duplex byte stream. Read and
// Write may be called at the same time; two Reads or two Writes may not.
type Stream struct {
	session *Session
	id      uint32 // 0 until opened; set holding session.writeMu and session.mu

	mu         sync.Mutex // guards what follows
	chunks     [][]byte   // received, not yet read
	buffered   int        // bytes in chunks
	untold     int        // bytes read, not yet credited to the peer
	window     int        // bytes we may still send
	finSent    bool
	finGot     bool
	closed     bool // Close was called
	err        error
	readable   chan struct{} // capacity 1: something to read, or the end
	writable   chan struct{} // capacity 1: window opened, or the end
	readLimit  deadline
	writeLimit deadline
}

func newStream(s *Session, id uint32) *Stream {
	return &Stream{
		session: s, id: id, window: Window,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// deliver takes ownership of chunk, unless it is small: then it is copied
// behind the last one, so that a flood of tiny frames costs no more memory
// than their bytes.
func (st *Stream) deliver(chunk []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.finGot {
		return fmt.Errorf("%w: data after the end of stream %d", ErrProtocol, st.id)
	}
	if st.buffered+st.untold+len(chunk) > Window {
		return fmt.Errorf("%w: stream %d overran its window", ErrProtocol, st.id)
	}
	if len(chunk) == 0 || st.closed {
		return nil
	}
	if len(chunk) > smallChunk {
		st.chunks = append(st.chunks, chunk)
	} else if last := len(st.chunks) - 1; last >= 0 && cap(st.chunks[last])-len(st.chunks[last]) >= len(chunk) {
		st.chunks[last] = append(st.chunks[last], chunk...)
	} else {
		st.chunks = append(st.chunks, append(make([]byte, 0, smallChunk), chunk...))
	}
	st.buffered += len(chunk)
	signal(st.readable)
	return nil
}

func (st *Stream) credit(n int) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.window += n; st.window > Window {
		return fmt.Errorf("%w: stream %d credited beyond its window", ErrProtocol, st.id)
	}
	signal(st.writable)
	return nil
}

func (st *Stream) remoteFin() {
	st.mu.Lock()
	st.finGot = true
	over := st.finSent
	st.mu.Unlock()
	signal(st.readable)
	if over {
		st.session.forget(st)
	}
}

// fail ends the stream both ways. What was received can still be read.
func (st *Stream) fail(err error) {
	st.mu.Lock()
	if st.err == nil {
		st.err = err
	}
	st.mu.Unlock()
	signal(st.readable)
	signal(st.writable)
}

var _ io.WriterTo = (*Stream)(nil)

// Read returns io.EOF once the peer has closed its side and all is read.
func (st *Stream) Read(p []byte) (int, error) {
	var n int
	err := st.receive(func() { n = st.take(p) })
	return n, err
}

// WriteTo is part of [io.WriterTo]: it passes on what is received without a
// buffer of its own.
func (st *Stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		var chunk []byte
		err := st.receive(func() {
			chunk, st.chunks = st.chunks[0], st.chunks[1:]
			st.taken(len(chunk))
		})
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(chunk)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// receive waits until something was received, calls take with the stream
// locked, and credits the peer for what was taken.
func (st *Stream) receive(take func()) error {
	for {
		st.mu.Lock()
		switch {
		case st.closed:
			st.mu.Unlock()
			return net.ErrClosed
		case st.readLimit.passed():
			st.mu.Unlock()
			return os.ErrDeadlineExceeded
		case st.buffered > 0:
			take()
			credit := st.due()
			st.mu.Unlock()
			if credit > 0 {
				// The bytes are ours whatever becomes of the session.
				st.session.writeMu.Lock()
				_ = st.session.send(st.id, flagCredit, credit, nil)
				st.session.writeMu.Unlock()
			}
			return nil
		case st.finGot:
			st.mu.Unlock()
			return io.EOF
		case st.err != nil:
			err := st.err
			st.mu.Unlock()
			return err
		}
		expired := st.readLimit.wait(&st.mu)
		st.mu.Unlock()
		select {
		case <-st.readable:
		case <-expired:
		}
	}
}

// take moves buffered bytes to p.
func (st *Stream) take(p []byte) int {
	n := 0
	for n < len(p) && len(st.chunks) > 0 {
		c := copy(p[n:], st.chunks[0])
		n += c
		if c == len(st.chunks[0]) {
			st.chunks[0] = nil
			st.chunks = st.chunks[1:]
		} else {
			st.chunks[0] = st.chunks[0][c:]
		}
	}
	st.taken(n)
	return n
}

func (st *Stream) taken(n int) {
	st.buffered -= n
	st.untold += n
}

// due returns how many bytes to credit to the peer now: half a window at
// once, so that credit frames are few and the sender never runs dry while the
// reader keeps up.
func (st *Stream) due() int {
	if st.untold < Window/2 || st.finGot || st.err != nil {
		return 0
	}
	credit := st.untold
	st.untold = 0
	return credit
}

// Write returns once all of p was handed to the transport.
func (st *Stream) Write(p []byte) (int, error) {
	for sent := 0; ; {
		n, wait, err := st.writeFrame(p[sent:])
		sent += n
		if err != nil || (sent == len(p) && wait == nil) {
			return sent, err
		}
		if wait != nil {
			select {
			case <-st.writable:
			case <-wait:
			}
		}
	}
}

// writeFrame sends what one frame and the window take of p. With no window it
// returns a channel that is closed when the write deadline passes.
func (st *Stream) writeFrame(p []byte) (n int, wait <-chan struct{}, err error) {
	s := st.session
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	st.mu.Lock()
	switch {
	case st.closed || st.finSent:
		err = net.ErrClosed
	case st.err != nil:
		err = st.err
	case st.writeLimit.passed():
		err = os.ErrDeadlineExceeded
	case st.window == 0:
		wait = st.writeLimit.wait(&st.mu)
	}
	if err != nil || wait != nil {
		st.mu.Unlock()
		return 0, wait, err
	}
	n = min(len(p), MaxPayload, st.window)
	st.window -= n
	st.mu.Unlock()
	flags, err := st.open(flagData)
	if err != nil {
		return 0, nil, err
	}
	return n, nil, s.send(st.id, flags, n, p[:n])
}

// open adds the opening flag to the first frame of the stream. The caller
// holds the session's writeMu.
func (st *Stream) open(flags byte) (byte, error) {
	if st.id != 0 {
		return flags, nil
	}
	return flags | flagOpen, st.session.register(st)
}

// CloseWrite tells the peer that no more data comes; reading goes on.
func (st *Stream) CloseWrite() error {
	s := st.session
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	st.mu.Lock()
	if st.finSent || st.closed || st.err != nil {
		st.mu.Unlock()
		return nil
	}
	st.finSent = true
	over := st.finGot
	st.mu.Unlock()
	flags, err := st.open(flagFin)
	if err == nil {
		err = s.send(st.id, flags, 0, nil)
	}
	if over {
		s.forget(st)
	}
	return err
}

// Close drops the stream. What was written still reaches the peer; what the
// peer sends from now on is thrown away, and its writes fail.
func (st *Stream) Close() error { return st.drop(true) }

// Reset drops the stream so that the peer takes it for cut off, even if all that
// the peer itself had to send has arrived.
func (st *Stream) Reset() error { return st.drop(false) }

func (st *Stream) drop(orderly bool) error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	st.chunks, st.buffered = nil, 0
	st.mu.Unlock()
	signal(st.readable)
	signal(st.writable)

	s := st.session
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.forget(st)
	st.mu.Lock()
	tell := st.id != 0 && st.err == nil && !(st.finSent && st.finGot)
	flags := byte(flagReset)
	if st.finGot && orderly {
		flags = flagFin // the peer has sent all: an orderly end
	}
	st.mu.Unlock()
	if tell {
		return s.send(st.id, flags, 0, nil)
	}
	return nil
}

// WriteClose is Write and then Close, in one frame where p fits in it.
func (st *Stream) WriteClose(p []byte) error {
	if sent, err := st.writeLast(p); sent || err != nil {
		return err
	}
	if _, err := st.Write(p); err != nil {
		return err
	}
	return st.Close()
}

func (st *Stream) writeLast(p []byte) (sent bool, err error) {
	s := st.session
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	st.mu.Lock()
	if len(p) == 0 || len(p) > min(MaxPayload, st.window) || st.closed || st.finSent || st.err != nil || st.writeLimit.passed() {
		st.mu.Unlock()
		return false, nil // Write knows what to do
	}
	st.closed = true
	st.chunks, st.buffered = nil, 0
	flags := byte(flagData | flagReset)
	if st.finGot {
		flags = flagData | flagFin // the peer has sent all: an orderly end
	}
	st.mu.Unlock()
	signal(st.readable)
	signal(st.writable)
	flags, err = st.open(flags)
	if err == nil {
		err = s.send(st.id, flags, len(p), p)
	}
	s.forget(st)
	return true, err
}

// LocalAddr is part of [net.Conn].
func (st *Stream) LocalAddr() net.Addr { return addr{} }

// RemoteAddr is part of [net.Conn].
func (st *Stream) RemoteAddr() net.Addr { return addr{} }

// SetDeadline is part of [net.Conn].
func (st *Stream) SetDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readLimit.set(t)
	st.writeLimit.set(t)
	return nil
}

// SetReadDeadline is part of [net.Conn].
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readLimit.set(t)
	return nil
}

// SetWriteDeadline is part of [net.Conn].
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.writeLimit.set(t)
	return nil
}

// deadline is guarded by its stream's mutex. A new deadline wakes the callers that
// wait under the old one, so that they wait again under the new one.
type deadline struct {
	at      time.Time
	expired chan struct{} // made when somebody waits
}

func (d *deadline) set(t time.Time) {
	d.at = t
	d.wake(d.expired)
}

func (d *deadline) wake(c chan struct{}) {
	if c != nil && d.expired == c {
		close(c)
		d.expired = nil
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// wait returns a channel that is closed when the deadline passes or changes.
func (d *deadline) wait(mu *sync.Mutex) <-chan struct{} {
	if d.expired == nil {
		c := make(chan struct{})
		d.expired = c
		if !d.at.IsZero() {
			time.AfterFunc(time.Until(d.at), func() {
				mu.Lock()
				defer mu.Unlock()
				d.wake(c)
			})
		}
	}
	return d.expired
}
