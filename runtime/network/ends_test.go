//go:build linux

package network

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/abdul-abdi/lumina/initramfs/relay"
)

// server dials a server of [listen], whatever a guest asks for.
func server(t testing.TB, do func(*net.TCPConn)) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	at := listen(t, do)
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp4", at) }
}

func cut(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// A download that the server cuts off does not look whole in the guest, nor an
// upload that the guest cuts off whole to the server; an end is an end.
func TestEndsArriveAsTheyAre(t *testing.T) {
	t.Run("the server's", func(t *testing.T) {
		for name, tt := range map[string]struct {
			end   func(net.Conn)
			clean bool
		}{"end": {func(c net.Conn) { c.Close() }, true}, "reset": {cut, false}} {
			g := newGuestOf(t, NAT(false), server(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "half")
				_, _ = io.ReadFull(c, make([]byte, 4))
				tt.end(c)
			}))
			c, err := g.connect("198.51.100.1:21")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "more")
			got, err := io.ReadAll(c)
			if (err == nil) != tt.clean || !tt.clean && !strings.Contains(err.Error(), "reset") {
				t.Errorf("after the server's %s: %q, %v", name, got, err)
			}
		}
	})
	t.Run("the guest's", func(t *testing.T) {
		for name, clean := range map[string]bool{"end": true, "reset": false} {
			ended := make(chan error, 1)
			g := newGuestOf(t, NAT(false), server(t, func(c *net.TCPConn) {
				_, err := io.ReadAll(c)
				ended <- err
				c.Close()
			}))
			c, err := g.connect("198.51.100.1:21")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "half")
			if clean {
				c.Close()
			} else {
				relay.Reset(c)
			}
			if err := <-ended; (err == nil) != clean || !clean && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after the guest's %s the server read %v", name, err)
			}
		}
	})
	t.Run("the machine's", func(t *testing.T) {
		for name, clean := range map[string]bool{"after all was sent": true, "before": false} {
			ended := make(chan error, 1)
			arrived := make(chan bool, 1)
			g := newGuestOf(t, NAT(false), server(t, func(c *net.TCPConn) {
				_, err := io.ReadFull(c, make([]byte, 4))
				arrived <- true
				if err == nil && clean {
					_, err = io.ReadAll(c)
					arrived <- true
				}
				if err == nil {
					_, err = io.ReadAll(c)
				}
				ended <- err
				c.Close()
			}))
			c, err := g.connect("198.51.100.1:21")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "half")
			<-arrived
			if clean {
				_ = c.(relayed).CloseWrite()
				<-arrived
			}
			g.net.Close()
			if err := <-ended; (err == nil) != clean || !clean && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after the machine's end, %s, the server read %v", name, err)
			}
		}
	})
	t.Run("half of the guest's", func(t *testing.T) {
		g := newGuestOf(t, NAT(false), server(t, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			_, _ = c.Write(b)
			c.Close()
		}))
		c, err := g.connect("198.51.100.1:21")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "question")
		_ = c.(relayed).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "question" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

type relayed interface{ CloseWrite() error }

// What cannot be reached is told as it is: by ICMP, by a reset, or by nothing.
func TestUnreachable(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syscall.ECONNREFUSED, "refused"},
		{syscall.EHOSTUNREACH, "no route to host"},
		{syscall.ENETUNREACH, "unreachable"},
		{syscall.EACCES, "no route to host"},
	} {
		g := newGuestOf(t, NAT(false), func(context.Context, string, string) (net.Conn, error) {
			return nil, os.NewSyscallError("connect", tt.err.(syscall.Errno))
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := gonet.DialContextTCP(ctx, g.stack, full("198.51.100.1:80"), ipv4.ProtocolNumber)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("where the host says %v the guest says %v, want %q", tt.err, err, tt.want)
		}
	}
	t.Run("nobody answers", func(t *testing.T) {
		tried := make(chan bool, 10)
		g := newGuestOf(t, NAT(false), func(context.Context, string, string) (net.Conn, error) {
			tried <- true
			return nil, context.DeadlineExceeded
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error, 1)
		go func() {
			_, err := gonet.DialContextTCP(ctx, g.stack, full("198.51.100.1:80"), ipv4.ProtocolNumber)
			failed <- err
		}()
		<-tried
		select {
		case <-tried: // the guest's own stack tries again
		case err := <-failed:
			t.Errorf("the guest gave up: %v", err)
		}
	})
	t.Run("a port without a server", func(t *testing.T) {
		l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		nobody := l.LocalAddr().String()
		l.Close()
		g := newGuestOf(t, NAT(false), func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "udp4", nobody) })
		var queue waiter.Queue
		endpoint, tcpErr := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
		if tcpErr != nil {
			t.Fatal(tcpErr)
		}
		defer endpoint.Close()
		if tcpErr := endpoint.Connect(full("198.51.100.1:123")); tcpErr != nil {
			t.Fatal(tcpErr)
		}
		entry, told := waiter.NewChannelEntry(waiter.EventErr)
		queue.EventRegister(&entry)
		for range 3 { // the flow goes on
			if _, tcpErr := endpoint.Write(strings.NewReader("anybody"), tcpip.WriteOptions{}); tcpErr != nil {
				t.Fatal(tcpErr)
			}
			select {
			case <-told:
				if err := endpoint.LastError(); err == nil || !strings.Contains(err.String(), "refused") {
					t.Errorf("the guest is told %v, want a refusal", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the guest is told nothing")
			}
		}
		if n := g.net.Metrics().Connections; n != 1 {
			t.Errorf("%d flows, want 1", n)
		}
	})
}

// There are never more connections than the process has descriptors for, and some
// to spare.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		descriptors    uint64
		guest, process int64
		lookups        int
	}{
		{64, 16, 16, 8},
		{256, 96, 96, 16},
		{1024, 384, 384, 64},
		{20000, 4096, 9872, 64},
		{1 << 40, 4096, 524160, 64},
	} {
		if guest, process, lookups := limits(tt.descriptors); guest != tt.guest || process != tt.process || lookups != tt.lookups {
			t.Errorf("limits(%d) = %d, %d, %d, want %d, %d, %d", tt.descriptors, guest, process, lookups, tt.guest, tt.process, tt.lookups)
		}
	}
	f := flows{most: 2, mostOfHost: 1000}
	first, second, third := f.take(), f.take(), f.take()
	if !first || !second || third {
		t.Error("two of two were not given, or a third")
	}
	f.give()
	if !f.take() {
		t.Error("what was given back is lost")
	}
	f.give()
	f.give()
	if n := flowsOpen.Load(); n < 0 {
		t.Errorf("%d connections are open", n)
	}
}

// A guest that opens connections without end takes no more descriptors than it may,
// and the process has others for its own work; nor does it take much memory by not
// reading what comes.
func TestFlood(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	const descriptors = 400
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: descriptors, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	l, err := net.Listen("tcp4", "127.0.0.1:0") // it accepts none
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGuestOf(t, NAT(false), func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp4", l.Addr().String()) })
	want, _, _ := limits(descriptors)
	opened := int64(0)
	for range descriptors {
		if c, err := g.connect("198.51.100.1:80"); err == nil {
			defer c.Close()
			opened++
		}
	}
	if opened != want {
		t.Errorf("%d connections were opened, want %d", opened, want)
	}
	for range descriptors / 8 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatalf("nothing is left for others: %v", err)
		}
		defer f.Close()
	}
	if list, _ := g.net.Denied(); len(list) != 1 || list[0].Count != descriptors-want {
		t.Errorf("denied: %v", list)
	}
}

func TestRoom(t *testing.T) {
	total := int64(0)
	for n := range int64(maxFlows) {
		size := room(n + 1)
		if size == 0 {
			size = 4 << 20
		}
		total += 2 * size
	}
	if total > 1<<30 {
		t.Errorf("a guest can have this process hold %d bytes", total)
	}
	if room(fewFlows) != 0 || room(fewFlows+1) != 1<<20 {
		t.Errorf("few connections have %d and %d bytes", room(fewFlows), room(fewFlows+1))
	}
}
