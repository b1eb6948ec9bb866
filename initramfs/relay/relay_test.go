package relay_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/relay"
)

// tcpPair is two ends of one connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, a} {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

// muxPair is two ends of one stream of a multiplexed connection.
func muxPair(t *testing.T) (host, guest net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	client, server := mux.Client(a), mux.Server(b)
	t.Cleanup(func() { client.Close(); server.Close() })
	host, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	guest, err = server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(guest, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return host, guest
}

// Each way in which one end can end, and what the other then sees: with one relay
// between them, and with two and a stream, as a forward has.
func TestEnds(t *testing.T) {
	read := func(c net.Conn) (string, error) {
		b, err := io.ReadAll(c)
		return string(b), err
	}
	cut := func(c *net.TCPConn) {
		_ = c.SetLinger(0)
		c.Close()
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, near, far *net.TCPConn)
	}{
		{"an end is an end", func(t *testing.T, near, far *net.TCPConn) {
			_, _ = io.WriteString(near, "all")
			near.Close()
			if got, err := read(far); got != "all" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		}},
		{"half an end is half an end", func(t *testing.T, near, far *net.TCPConn) {
			_, _ = io.WriteString(near, "question")
			_ = near.CloseWrite()
			if got, err := read(far); got != "question" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			_, _ = io.WriteString(far, "answer")
			far.Close()
			if got, err := read(near); got != "answer" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		}},
		{"a download that is cut", func(t *testing.T, near, far *net.TCPConn) {
			_, _ = io.WriteString(near, "half")
			if b := make([]byte, 4); true {
				if _, err := io.ReadFull(far, b); err != nil {
					t.Fatal(err)
				}
			}
			cut(near)
			if got, err := read(far); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q, %v, want a reset", got, err)
			}
		}},
		{"a cut after half an end", func(t *testing.T, near, far *net.TCPConn) {
			_ = far.CloseWrite()
			if got, err := read(near); got != "" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
			cut(near)
			if got, err := read(far); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q, %v, want a reset", got, err)
			}
		}},
		{"an upload that is cut after the answer ended", func(t *testing.T, near, far *net.TCPConn) {
			_ = near.CloseWrite()
			if got, err := read(far); got != "" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
			cut(far)
			if got, err := read(near); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q, %v, want a reset", got, err)
			}
		}},
		{"the end of whoever does not read", func(t *testing.T, near, far *net.TCPConn) {
			_, _ = io.WriteString(near, "the last word")
			if b := make([]byte, 13); true {
				if _, err := io.ReadFull(far, b); err != nil {
					t.Fatal(err)
				}
			}
			near.Close()
			var err error
			for b := make([]byte, 64<<10); err == nil; {
				_, err = far.Write(b)
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("Write() = %v, want a reset", err)
			}
		}},
	} {
		join := func(t *testing.T, a, b net.Conn) {
			done := make(chan struct{})
			go func() {
				relay.Join(a, b)
				a.Close()
				b.Close()
				close(done)
			}()
			t.Cleanup(func() {
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Error("the relay goes on")
				}
			})
		}
		t.Run(tt.name, func(t *testing.T) {
			near, a := tcpPair(t)
			b, far := tcpPair(t)
			join(t, a, b)
			tt.do(t, near, far)
			near.Close()
			far.Close()
		})
		t.Run(tt.name+", through a stream", func(t *testing.T) {
			near, a := tcpPair(t)
			b, far := tcpPair(t)
			host, guest := muxPair(t)
			join(t, a, host)
			join(t, guest, b)
			tt.do(t, near, far)
			near.Close()
			far.Close()
		})
	}
}

// What a peer sent before it took no more is still passed on.
func TestLastWords(t *testing.T) {
	near, a := tcpPair(t)
	b, far := tcpPair(t)
	go func() {
		relay.Join(a, b)
		a.Close()
		b.Close()
	}()
	_, _ = io.WriteString(near, "much")
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(far, "413 too large")
	far.Close() // with unread data: a reset
	got := make([]byte, 13)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "413 too large" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := io.ReadAll(near); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("then %v, want a reset", err)
	}
}
