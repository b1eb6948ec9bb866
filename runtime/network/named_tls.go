package network

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// Of TLS (RFC 8446, 5.1 and 4).
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordHeader           = 5
	maxRecord              = 16<<10 + 256 // bytes of its content
	clientHello            = 1
	serverHello            = 2
	handshakeHeader        = 4
	maxHello               = 12 << 10 // bytes; what reads names in front of servers holds 15 KiB or 16 KiB of one
	alertSize              = 2        // bytes
	alertWarning           = 1
	maxWarnings            = 4 // before a server's hello
)

// retryRandom is the random value of a server's hello that asks for another one of
// the client.
var retryRandom = []byte("\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c")

// tlsRules has the handshake of a connection name an allowed host. A client may be
// asked for a second hello, in which a server may read the name anew: it has to be
// the same.
type tlsRules struct {
	*named
	name    string
	verdict chan struct{} // closed when the server has answered the first hello
	retry   bool          // with a wish for another
	over    bool          // with an alert, or not in TLS
	past    bool          // the guest's side is not looked at any more
}

// next is the hello, and what follows it.
func (t *tlsRules) next() (io.Reader, error) {
	switch {
	case t.past:
		return endless{t.guestBytes}, nil
	case t.name == "":
		hello, name, err := readServerName(t.network.ctx, t.guestBytes)
		if err == nil {
			err = t.network.checkName(name, t.to)
		}
		t.name = name
		return bytes.NewReader(hello), err
	}
	header, err := t.guestBytes.Peek(recordHeader)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	// What comes before the answer, as early data does, waits for it: the server may speak
	// another protocol, and take that for its own.
	select {
	case <-t.verdict:
	case <-t.ended:
		return nil, io.EOF
	}
	if t.over {
		return nil, io.EOF
	}
	if !t.retry {
		t.past = true
		return endless{t.guestBytes}, nil
	}
	if header[0] != recordHandshake {
		return t.record(header)
	}
	t.past = true
	hello, name, err := readServerName(t.network.ctx, t.guestBytes)
	if err == nil && name != t.name {
		err = &wrongName{name, "the guest named another host in its second TLS hello"}
	}
	return bytes.NewReader(hello), err
}

// record is a record as it is.
func (t *tlsRules) record(header []byte) (io.Reader, error) {
	size := int64(binary.BigEndian.Uint16(header[3:]))
	if size > maxRecord {
		return nil, errNoHello
	}
	return io.LimitReader(t.guestBytes, recordHeader+size), nil
}

// nextBack is what the server says, of which the beginning tells whether it asks for
// another hello. A server that does not answer in TLS is not heard, and hears no more: it
// would take what follows for its own protocol.
func (t *tlsRules) nextBack() (io.Reader, error) {
	select {
	case <-t.verdict:
		return endless{t.hostBytes}, nil
	default:
	}
	raw, said, err := t.answer()
	t.over = err != nil || len(said) == 0
	if at := handshakeHeader + 2; len(said) >= at+len(retryRandom) {
		t.retry = bytes.Equal(said[at:at+len(retryRandom)], retryRandom)
	}
	close(t.verdict)
	return bytes.NewReader(raw), err
}

// answer reads the beginning of what a server says: of its hello as much as said, or
// nothing where it ends the handshake.
func (t *tlsRules) answer() (raw, said []byte, err error) {
	warnings := 0
	for len(said) < handshakeHeader+2+len(retryRandom) {
		header, content, err := readRecord(t.hostBytes)
		if err != nil && !errors.Is(err, errNoHello) {
			return nil, nil, err // it says no more
		}
		raw = append(append(raw, header...), content...)
		switch {
		case err == nil && header[0] == recordHandshake && (len(said) > 0 || len(content) > 0 && content[0] == serverHello):
			said = append(said, content...)
		case err == nil && header[0] == recordAlert && len(content) == alertSize && len(said) == 0 && content[0] != alertWarning:
			return raw, nil, nil
		case err == nil && header[0] == recordAlert && len(content) == alertSize && len(said) == 0 && warnings < maxWarnings:
			warnings++
		default:
			return nil, nil, &wrongName{t.name, "the server does not answer in TLS"}
		}
	}
	return raw, said, nil
}

func readRecord(r *bufio.Reader) (header, content []byte, err error) {
	header = make([]byte, recordHeader)
	if n, err := io.ReadFull(r, header); err != nil {
		return header[:n], nil, err
	}
	size := int(binary.BigEndian.Uint16(header[3:]))
	if header[1] != 3 || size > maxRecord {
		return header, nil, errNoHello
	}
	content = make([]byte, size)
	if n, err := io.ReadFull(r, content); err != nil {
		return header, content[:n], noEOF(err)
	}
	return header, content, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var (
	errNoHello  = &wrongName{"", "the guest did not begin with a TLS handshake that can be read"}
	errGotHello = errors.New("the hello is read")
)

// readServerName reads a TLS ClientHello, in records of its own, and returns it and the
// name in it; "" when it has none. It is returned in one record, however it came: what
// tells servers behind one address apart may look at the first record only, and send a
// name that it does not find there to a server that is not allowed.
func readServerName(ctx context.Context, r *bufio.Reader) (hello []byte, name string, err error) {
	var message []byte
	var minor byte
	for {
		header, content, err := readRecord(r)
		if err != nil {
			return nil, "", err
		}
		if len(message) == 0 {
			minor = header[2]
		}
		message = append(message, content...)
		if header[0] != recordHandshake || len(content) == 0 || len(message) > maxHello {
			return nil, "", errNoHello
		}
		if len(message) < handshakeHeader {
			continue
		}
		size := handshakeHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		if message[0] != clientHello || len(message) > size || size > maxHello {
			return nil, "", errNoHello
		}
		if len(message) == size {
			break
		}
	}
	if v := message[handshakeHeader:]; len(v) < 2 || v[0] != 3 || v[1] < 1 || v[1] > 3 { // TLS 1.0 to 1.2; 1.3 says that it is 1.2
		return nil, "", errNoHello
	}
	hello = append([]byte{recordHandshake, 3, min(max(minor, 1), 3), byte(len(message) >> 8), byte(len(message))}, message...)
	err = tls.Server(&helloConn{r: bytes.NewReader(hello)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errGotHello
	}}).HandshakeContext(ctx)
	if !errors.Is(err, errGotHello) {
		return nil, "", errNoHello
	}
	return hello, name, nil
}

// helloConn reads; what is written, an alert, goes nowhere.
type helloConn struct {
	net.Conn
	r io.Reader
}

func (c *helloConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *helloConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *helloConn) Close() error                     { return nil }
func (c *helloConn) SetDeadline(time.Time) error      { return nil }
func (c *helloConn) SetWriteDeadline(time.Time) error { return nil }
