// Package mux carries many flow-controlled streams over one byte stream, such
// as a virtio-serial port, where the host has no vsock.
//
// It exists because an exec is a handful of tiny messages: opening a stream
// costs no frame of its own (the first data frame opens it), a frame is one
// write (one virtqueue kick in the guest), and a write happens in the caller's
// goroutine. The format is documented in ../PROTOCOL.md.
//
// Every stream has a receive window of [Window] bytes a direction, so that a
// reader that stops reading stops its own stream and nothing else, and the
// memory a peer can make us hold is the number of streams times Window.
package mux

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
)

const (
	// Window is how many bytes a peer may send on a stream, in one
	// direction, before the reader has taken them.
	Window = 256 << 10
	// MaxPayload is the longest payload of one frame, in bytes. The guest
	// kernel's virtio-serial driver copies a write of at most 32 KiB into
	// one buffer; a frame fits in it, header included.
	MaxPayload = 32<<10 - headerSize
	// MaxStreams is how many streams may be open at once in a session.
	MaxStreams = 16384

	headerSize = 8
	// smallChunk bytes and less are copied from the read buffer; more are
	// read straight into a chunk of their own.
	smallChunk = 1024
)

// The flags of a frame; a frame has at least one.
const (
	flagOpen   = 1 << iota // first frame of a stream
	flagData               // length bytes of payload follow
	flagFin                // the sender sends no more data
	flagReset              // the sender has dropped the stream, both ways
	flagCredit             // length is a number of bytes taken by the reader; no payload
	flagsEnd
)

var (
	// ErrReset is returned by a stream that its peer dropped.
	ErrReset = errors.New("stream reset by peer")
	// ErrTooManyStreams is returned by Open when MaxStreams are open.
	ErrTooManyStreams = fmt.Errorf("more than %d streams open", MaxStreams)
	// ErrProtocol is wrapped by the session's error when the peer broke the format.
	ErrProtocol = errors.New("mux protocol violation")
)

// Session is one end of a multiplexed connection. The end made by Client opens
// streams, the end made by Server accepts them; never the other way round.
type Session struct {
	conn io.ReadWriteCloser

	// writeMu is held for one frame: from the decision what it says to the
	// end of its write. It is taken before mu and before a stream's mu.
	writeMu  sync.Mutex
	writeBuf []byte

	mu      sync.Mutex // guards what follows
	streams map[uint32]*Stream
	lastID  uint32
	err     error
	done    chan struct{} // closed when the session has ended

	accept chan *Stream // nil on a client
}

// Client starts the end that opens streams. It owns conn.
func Client(conn io.ReadWriteCloser) *Session { return start(conn, nil, 0) }

// ClientFrom is Client for a peer that has had streams of an earlier client,
// which are all closed: the numbers of this one's begin after last.
func ClientFrom(conn io.ReadWriteCloser, last uint32) *Session { return start(conn, nil, last) }

// Server starts the end that accepts streams. It owns conn.
func Server(conn io.ReadWriteCloser) *Session {
	return start(conn, make(chan *Stream, MaxStreams), 0)
}

func start(conn io.ReadWriteCloser, accept chan *Stream, last uint32) *Session {
	s := &Session{
		conn:     conn,
		writeBuf: make([]byte, headerSize+MaxPayload),
		streams:  make(map[uint32]*Stream),
		done:     make(chan struct{}),
		accept:   accept,
		lastID:   last,
	}
	go func() { s.shutdown(s.readLoop()) }()
	return s
}

// Open makes a new stream. Nothing is sent until its first Write.
func (s *Session) Open() (net.Conn, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	if s.Streams() >= MaxStreams {
		return nil, ErrTooManyStreams
	}
	return newStream(s, 0), nil
}

// Accept waits for the peer to open a stream. It is part of [net.Listener].
func (s *Session) Accept() (net.Conn, error) {
	select {
	case st := <-s.accept:
		return st, nil
	case <-s.done:
		return nil, s.Err()
	}
}

// Addr is part of [net.Listener].
func (s *Session) Addr() net.Addr { return addr{} }

// Close ends the session and all its streams.
func (s *Session) Close() error {
	s.shutdown(net.ErrClosed)
	return nil
}

// Done is closed when the session has ended; Err then says why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is nil while the session works.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Streams is the number of streams that are open.
func (s *Session) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

func (s *Session) shutdown(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	streams := s.streams
	s.streams = make(map[uint32]*Stream)
	close(s.done)
	s.mu.Unlock()
	s.conn.Close()
	for _, st := range streams {
		st.fail(err)
	}
}

// register numbers a stream when its first frame is about to be sent, so that
// numbers rise in the order of the frames. The caller holds writeMu.
func (s *Session) register(st *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case len(s.streams) >= MaxStreams:
		return ErrTooManyStreams
	case s.lastID == math.MaxUint32:
		return errors.New("stream numbers are used up")
	}
	s.lastID++
	st.id = s.lastID
	s.streams[st.id] = st
	return nil
}

func (s *Session) forget(st *Stream) {
	s.mu.Lock()
	if s.streams[st.id] == st {
		delete(s.streams, st.id)
	}
	s.mu.Unlock()
}

// send writes one frame in one Write. A failed write ends the session: part of
// the frame may have left. The caller holds writeMu.
func (s *Session) send(id uint32, flags byte, length int, payload []byte) error {
	putHeader(s.writeBuf, id, flags, length)
	n := headerSize + copy(s.writeBuf[headerSize:], payload)
	if _, err := s.conn.Write(s.writeBuf[:n]); err != nil {
		s.shutdown(fmt.Errorf("writing to the peer: %w", err))
		return s.Err()
	}
	return nil
}

func putHeader(b []byte, id uint32, flags byte, length int) {
	binary.BigEndian.PutUint32(b, id)
	binary.BigEndian.PutUint32(b[4:], uint32(flags)<<24|uint32(length))
}

// readLoop never waits for a reader of a stream (windows bound what it has to
// keep) and never writes, so that two sessions cannot wait for each other.
func (s *Session) readLoop() error {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	var header [headerSize]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return fmt.Errorf("reading from the peer: %w", err)
		}
		id := binary.BigEndian.Uint32(header[:])
		word := binary.BigEndian.Uint32(header[4:])
		flags, length := byte(word>>24), int(word&(1<<24-1))
		if err := s.receive(r, id, flags, length); err != nil {
			return err
		}
	}
}

func (s *Session) receive(r *bufio.Reader, id uint32, flags byte, length int) error {
	switch {
	case flags == 0 || flags >= flagsEnd:
		return fmt.Errorf("%w: flags %#x", ErrProtocol, flags)
	case flags&flagData != 0 && (flags&flagCredit != 0 || length > MaxPayload):
		return fmt.Errorf("%w: payload of %d bytes with flags %#x", ErrProtocol, length, flags)
	case flags&(flagData|flagCredit) == 0 && length != 0:
		return fmt.Errorf("%w: length %d without payload", ErrProtocol, length)
	}
	st, err := s.stream(id, flags)
	if err != nil {
		return err
	}
	if flags&flagData != 0 {
		if st == nil { // dropped here while the peer was still sending
			if _, err := r.Discard(length); err != nil {
				return fmt.Errorf("reading from the peer: %w", err)
			}
			return nil
		}
		if err := receiveData(r, st, length); err != nil {
			return err
		}
	}
	if st == nil {
		return nil
	}
	if flags&flagCredit != 0 {
		if err := st.credit(length); err != nil {
			return err
		}
	}
	if flags&flagFin != 0 {
		st.remoteFin()
	}
	if flags&flagReset != 0 {
		s.forget(st)
		st.fail(ErrReset)
	}
	return nil
}

func receiveData(r *bufio.Reader, st *Stream, length int) error {
	if length <= smallChunk {
		chunk, err := r.Peek(length)
		if err != nil {
			return fmt.Errorf("reading from the peer: %w", err)
		}
		if err := st.deliver(chunk); err != nil {
			return err
		}
		_, err = r.Discard(length)
		return err
	}
	chunk := make([]byte, length)
	if _, err := io.ReadFull(r, chunk); err != nil {
		return fmt.Errorf("reading from the peer: %w", err)
	}
	return st.deliver(chunk)
}

// stream finds the stream of a frame, makes it when the frame opens it, and
// returns nil for one that was already dropped here.
func (s *Session) stream(id uint32, flags byte) (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if flags&flagOpen == 0 {
		st := s.streams[id]
		if st == nil && (id == 0 || id > s.lastID) {
			return nil, fmt.Errorf("%w: frame for stream %d, which was never opened", ErrProtocol, id)
		}
		return st, nil
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case s.accept == nil:
		return nil, fmt.Errorf("%w: the accepting end opened a stream", ErrProtocol)
	case id <= s.lastID:
		return nil, fmt.Errorf("%w: stream %d opened twice", ErrProtocol, id)
	case len(s.streams) >= MaxStreams:
		return nil, fmt.Errorf("%w: %w", ErrProtocol, ErrTooManyStreams)
	}
	s.lastID = id
	st := newStream(s, id)
	s.streams[id] = st
	// The queue holds as many streams as can be open; only a peer that opens
	// and drops them faster than Accept runs can fill it.
	select {
	case s.accept <- st:
	default:
		return nil, fmt.Errorf("%w: accept queue is full", ErrProtocol)
	}
	return st, nil
}

type addr struct{}

func (addr) Network() string { return "mux" }
func (addr) String() string  { return "mux" }

var (
	_ net.Listener = (*Session)(nil)
	_ net.Conn     = (*Stream)(nil)
)
