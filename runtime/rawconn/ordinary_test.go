package rawconn

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// full is a datagram socket of macOS, whose peer has no room for a while.
type full struct {
	Socket
	refusals int // before there is room
	deadline time.Time
	sent     []string
}

func (f *full) SetWriteDeadline(t time.Time) error { f.deadline = t; return nil }

func (f *full) Write(b []byte) (int, error) {
	if !f.deadline.IsZero() && time.Now().After(f.deadline) {
		return 0, &net.OpError{Op: "write", Err: os.ErrDeadlineExceeded}
	}
	if f.refusals != 0 {
		f.refusals--
		return 0, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ENOBUFS)}
	}
	f.sent = append(f.sent, string(b))
	return len(b), nil
}

// A guest that does not keep up is waited for; its network is not cut.
func TestFullDatagramSocket(t *testing.T) {
	s := &full{refusals: 20}
	c := ordinary{s}
	for _, frame := range []string{"one", "two"} {
		if n, err := c.Write([]byte(frame)); n != len(frame) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if len(s.sent) != 2 || s.sent[0] != "one" || s.sent[1] != "two" {
		t.Errorf("sent %q", s.sent)
	}
}

// One that never reads does not hold a writer for ever.
func TestFullDatagramSocketDeadline(t *testing.T) {
	s := &full{refusals: -1}
	c := ordinary{s}
	if err := c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v, want the deadline", err)
	}
}

// An offer does not wait, and half-closing and resetting an ordinary socket work.
func TestOrdinary(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c := ordinary{d.(*net.TCPConn)}
	if err := errors.Join(c.Offer([]byte("a")), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if n, err := peer.Read(b); string(b[:n]) != "a" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if n, err := peer.Read(b); n != 0 || err == nil {
		t.Errorf("read %q, %v, want the end", b[:n], err)
	}
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
}
