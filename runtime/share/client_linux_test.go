package share

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// client is a guest's kernel, as a test plays it.
type client struct {
	t      testing.TB
	conn   net.Conn
	unique uint64
	user   uint32 // who asks
	served chan error
}

// mount serves a directory to a client.
func mount(t testing.TB, dir string, o Options) *client {
	t.Helper()
	_, c := serve(t, dir, o)
	return c
}

// open opens a server, and the two ends of its connection.
func open(t testing.TB, dir string, o Options) (s *Server, here *net.UnixConn, theirs net.Conn) {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	here, f, err := socketpair.New(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return s, here, theirs
}

// serve is mount with the server.
func serve(t testing.TB, dir string, o Options) (*Server, *client) {
	t.Helper()
	s, here, conn := open(t, dir, o)
	c := &client{t: t, conn: here, served: make(chan error, 1)}
	go func() {
		c.served <- s.Serve(conn)
		conn.Close()
		s.Close()
		close(c.served)
	}()
	t.Cleanup(func() {
		here.Close()
		<-c.served
	})
	c.ok(opInit, 0, words(7, 41, 1<<20, 0xffffffff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	return s, c
}

// words lays out numbers of 32 bits.
func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// longs lays out numbers of 64 bits.
func longs(v ...uint64) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// message joins the parts of one: numbers, names, bytes.
func message(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case []byte:
			b = append(b, v...)
		case string:
			b = append(append(b, v...), 0)
		default:
			panic(fmt.Sprintf("a part of type %T", p))
		}
	}
	return b
}

func (c *client) send(op opcode, node uint64, body []byte) uint64 {
	c.t.Helper()
	c.unique += 2
	b := words(uint32(requestSize+len(body)), uint32(op))
	b = append(b, longs(c.unique, node)...)
	b = append(b, words(c.user, c.user, 1, 0)...)
	if _, err := c.conn.Write(append(b, body...)); err != nil {
		c.t.Fatal(err)
	}
	return c.unique
}

// receive reads an answer.
func (c *client) receive() (unique uint64, errno unix.Errno, body []byte) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	header := make([]byte, replySize)
	if _, err := io.ReadFull(c.conn, header); err != nil {
		c.t.Fatal(err)
	}
	body = make([]byte, binary.LittleEndian.Uint32(header)-replySize)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		c.t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(header[8:]), unix.Errno(-int32(binary.LittleEndian.Uint32(header[4:]))), body
}

// call sends a request and waits for its answer.
func (c *client) call(op opcode, node uint64, body []byte) ([]byte, unix.Errno) {
	c.t.Helper()
	want := c.send(op, node, body)
	unique, errno, answer := c.receive()
	if unique != want {
		c.t.Fatalf("an answer to %d, want one to %d", unique, want)
	}
	return answer, errno
}

func (c *client) ok(op opcode, node uint64, body []byte) []byte {
	c.t.Helper()
	answer, errno := c.call(op, node, body)
	if errno != 0 {
		c.t.Fatalf("operation %d: %v", op, errno)
	}
	return answer
}

func (c *client) fails(want unix.Errno, op opcode, node uint64, body []byte) {
	c.t.Helper()
	if _, errno := c.call(op, node, body); errno != want {
		c.t.Errorf("operation %d: %v, want %v", op, errno, want)
	}
}

func number(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// lookup is the number of a file below a directory.
func (c *client) lookup(dir uint64, name string) uint64 {
	c.t.Helper()
	return number(c.ok(opLookup, dir, message(name)))
}

func BenchmarkGetattr(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(dir+"/f", nil, 0o644); err != nil {
		b.Fatal(err)
	}
	c := mount(b, dir, Options{})
	id := c.lookup(rootID, "f")
	body := make([]byte, 16)
	for b.Loop() {
		c.ok(opGetattr, id, body)
	}
}
