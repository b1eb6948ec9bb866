package rawconn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/accept"
	"github.com/abdul-abdi/lumina/runtime/rawconn"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// echo accepts connections and sends back what they bring.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go accept.Each(l, func(c net.Conn) { _, _ = io.Copy(c, c) })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A connection carries bytes, more than sockets have room for, and either side's end.
func TestDialTCP(t *testing.T) {
	to := echo(t)
	c, err := rawconn.DialTCP(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != to.String() {
		t.Errorf("RemoteAddr() = %s, want %s", got, to)
	}
	if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err != nil || local.Addr() != to.Addr() || local.Port() == 0 {
		t.Errorf("LocalAddr() = %s, %v", c.LocalAddr(), err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
}

// One whose calls are announced carries the same.
func TestAnnounce(t *testing.T) {
	c, err := rawconn.DialTCP(t.Context(), echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Announce()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
}

// Many at once: an answer that comes before it is waited for is not missed.
func TestDialTCPOften(t *testing.T) {
	to := echo(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				c, err := rawconn.DialTCP(t.Context(), to)
				if err != nil {
					t.Error(err)
					return
				}
				var b [1]byte
				if _, err := c.Write([]byte("x")); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != 'x' {
					t.Errorf("%q came back, %v", b, err)
				}
				c.Close()
			}
		})
	}
	all.Wait()
}

func TestDialTCPFails(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if c, err := rawconn.DialTCP(t.Context(), nobody); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("DialTCP(nobody) = %v, %v, want a refusal", c, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := rawconn.DialTCP(ctx, echo(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("DialTCP(canceled) = %v, %v, want %v", c, err, context.Canceled)
	}
}

// pair is a Conn and a file that is its other end.
func pair(t *testing.T, kind int) (*rawconn.Conn, *os.File) {
	t.Helper()
	ours, theirs, err := socketpair.New(kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	c, err := rawconn.New(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, theirs
}

// What waits ends with the connection, or at its deadline.
func TestReadEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*rawconn.Conn, *os.File)
		want error
	}{
		{"closed here", func(c *rawconn.Conn, _ *os.File) { c.Close() }, net.ErrClosed},
		{"closed there", func(_ *rawconn.Conn, f *os.File) { f.Close() }, io.EOF},
		{"deadline", func(c *rawconn.Conn, _ *os.File) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	} {
		c, f := pair(t, syscall.SOCK_STREAM)
		ended := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		tt.end(c, f)
		if err := <-ended; !errors.Is(err, tt.want) {
			t.Errorf("%s: Read() = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A datagram is sent whole; one that is offered is, or is not.
func TestOffer(t *testing.T) {
	c, f := pair(t, syscall.SOCK_DGRAM)
	n := 0
	for c.Offer([]byte("datagram")) == nil {
		n++
	}
	if n == 0 {
		t.Fatal("none was sent")
	}
	b := make([]byte, 64)
	for range n {
		if k, err := f.Read(b); err != nil || string(b[:k]) != "datagram" {
			t.Fatalf("read %q, %v", b[:k], err)
		}
	}
	if err := c.Offer([]byte("again")); err != nil {
		t.Errorf("Offer() = %v when there is room again", err)
	}
}

// Datagrams may be empty.
func TestDatagrams(t *testing.T) {
	there, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	socket, err := net.DialUDP("udp4", nil, there.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	c, err := rawconn.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 16)
	for _, want := range []string{"one", "", "three"} {
		if _, err := c.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		n, from, err := there.ReadFrom(b)
		if err != nil || string(b[:n]) != want {
			t.Fatalf("%q arrived, %v, want %q", b[:n], err, want)
		}
		if _, err := there.WriteTo(b[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("Read() = %q, %v, want %q", b[:n], err, want)
		}
	}
}

// A goroutine that never has to wait does not keep the others from what comes for
// them, not even where the process was idle before.
func TestFloodLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	begin, beginThere := pair(t, syscall.SOCK_STREAM)
	other, otherThere := pair(t, syscall.SOCK_STREAM)
	cmd := exec.Command("/bin/sh", "-c", "sleep 0.1; echo >&3; sleep 0.1; echo >&4")
	cmd.ExtraFiles = []*os.File{beginThere, otherThere}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	loop, there := pair(t, syscall.SOCK_DGRAM)
	back, err := socketpair.Conn(there)
	if err != nil {
		t.Fatal(err)
	}
	flood, err := rawconn.New(back)
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	const limit = 3_000_000 // of what takes a microsecond
	var stop atomic.Bool
	turns := make(chan int)
	go func() {
		b := make([]byte, 1)
		_, _ = begin.Read(b)
		n := 0
		for ; n < limit && !stop.Load(); n++ {
			_, _ = loop.Write(b)
			_, _ = flood.Read(b)
		}
		turns <- n
	}()
	_, err = other.Read(make([]byte, 1))
	stop.Store(true)
	if n := <-turns; n == limit || err != nil {
		t.Errorf("something came for another goroutine, which saw it after %d turns of this one, %v", n, err)
	}
}
