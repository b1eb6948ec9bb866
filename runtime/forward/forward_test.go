package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/relay"
	"github.com/abdul-abdi/lumina/runtime/accept"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

func TestParse(t *testing.T) {
	for s, want := range map[string][]Rule{
		"8080:80":                 {{TCP, 8080, 80}},
		"8080:80/tcp":             {{TCP, 8080, 80}},
		"5353:53/udp":             {{UDP, 5353, 53}},
		"5353:53/UDP":             {{UDP, 5353, 53}},
		"80":                      {{TCP, 0, 80}},
		":80":                     {{TCP, 0, 80}},
		"53/udp":                  {{UDP, 0, 53}},
		"127.0.0.1:8080:80":       {{TCP, 8080, 80}},
		"localhost:8080:80":       {{TCP, 8080, 80}},
		"127.0.0.1::80":           {{TCP, 0, 80}},
		"8000-8002:9000-9002":     {{TCP, 8000, 9000}, {TCP, 8001, 9001}, {TCP, 8002, 9002}},
		"9000-9001/udp":           {{UDP, 0, 9000}, {UDP, 0, 9001}},
		"0.0.0.0:8080:80":         nil,
		"192.0.2.1:8080:80":       nil,
		"[::1]:8080:80":           nil,
		"example.test:8080:80":    nil,
		"":                        nil,
		"80:":                     nil,
		"x:80":                    nil,
		"0:80":                    nil,
		"80:0":                    nil,
		"80:65536":                nil,
		"-1:80":                   nil,
		"+80:80":                  nil,
		"80:80/sctp":              nil,
		"80:80/":                  nil,
		"8000-8001:80":            nil,
		"8001-8000:80-81":         nil,
		"1-65535:1-65535":         nil,
		"8080:80 ":                nil,
		"8080:80\n127.0.0.1:1:22": nil,
		"127.0.0.1:0.0.0.0:80:80": nil,
	} {
		got, err := Parse(s)
		if !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) {
			t.Errorf("Parse(%q) = %v, %v, want %v", s, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
	if _, err := ParseAll([]string{"8080:80", "8080:81"}); err == nil {
		t.Error("a port of the host can be forwarded twice")
	}
	if rules, err := ParseAll([]string{"8080:80", "8080:80/udp", "80", "81"}); err != nil || len(rules) != 4 {
		t.Errorf("ParseAll() = %v, %v", rules, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("127.0.0.1:8000-8002:9000-9002/udp")
	f.Fuzz(func(t *testing.T, s string) {
		rules, err := Parse(s)
		if (err == nil) != (len(rules) > 0) || len(rules) > maxRange {
			t.Errorf("Parse(%q) = %v, %v", s, rules, err)
		}
		for _, r := range rules {
			if r.Guest == 0 {
				t.Errorf("Parse(%q) = %v", s, rules)
			}
			if again, err := Parse(r.String()); r.Host != 0 && (err != nil || again[0] != r) {
				t.Errorf("%v is written %q, and read as %v, %v", r, r, again, err)
			}
		}
	})
}

// host is a guest whose loopback is this host's.
type host struct{}

func (host) DialPort(ctx context.Context, protocol string, port uint16) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, protocol, fmt.Sprintf("127.0.0.1:%d", port))
}

// silent is a guest that answers no dial.
type silent struct{ dialing chan context.Context }

func (s silent) DialPort(ctx context.Context, _ string, _ uint16) (net.Conn, error) {
	s.dialing <- ctx
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// upper is a server that answers, when the client has sent all, with that in capitals.
func upper(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go accept.Each(l, func(c net.Conn) {
		b, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(bytes.ToUpper(b))
		}
	})
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func set(t *testing.T, g Guest, rules ...Rule) *Set {
	t.Helper()
	s, err := Listen(rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Serve(g)
	return s
}

func dialSet(t *testing.T, r Rule) net.Conn {
	t.Helper()
	c, err := net.Dial(r.Protocol, fmt.Sprintf("127.0.0.1:%d", r.Host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// try connects and waits for the end of the connection.
func try(r Rule) error {
	c, err := net.Dial(r.Protocol, fmt.Sprintf("127.0.0.1:%d", r.Host))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.ReadAll(c)
	return err
}

// What a client sends at once arrives, and its half-close does.
func TestTCP(t *testing.T) {
	s := set(t, host{}, Rule{TCP, 0, upper(t)})
	c := dialSet(t, s.Rules()[0])
	text := strings.Repeat("a", 3*maxEarly)
	_, _ = io.WriteString(c, text)
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != strings.ToUpper(text) {
		t.Errorf("answer of %d bytes, %v", len(b), err)
	}
}

func TestUDP(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDP(bytes.ToUpper(b[:n]), from)
		}
	}()
	s := set(t, host{}, Rule{UDP, 0, uint16(server.LocalAddr().(*net.UDPAddr).Port)})
	for _, name := range []string{"a", "b"} { // two clients
		c := dialSet(t, s.Rules()[0])
		for _, text := range []string{name, "", strings.Repeat(name, 9000)} {
			_, _ = io.WriteString(c, text)
			b := make([]byte, maxDatagram)
			n, err := c.Read(b)
			if want := strings.ToUpper(text); err != nil || string(b[:n]) != want {
				t.Errorf("answer = %.20q, %v, want %.20q", b[:n], err, want)
			}
		}
	}
}

// A guest that refuses, and one that resets, looks so to the client.
func TestResets(t *testing.T) {
	none, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(none.Addr().(*net.TCPAddr).Port)
	none.Close()
	s := set(t, host{}, Rule{TCP, 0, port})
	if err := try(s.Rules()[0]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port that nobody listens on: %v", err)
	}

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	added, err := s.Add([]Rule{{TCP, 0, uint16(l.Addr().(*net.TCPAddr).Port)}})
	if err != nil {
		t.Fatal(err)
	}
	c := dialSet(t, added[0])
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(server, "part")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	relay.Reset(server)
	if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a server that reset: %q, %v", b, err)
	}
	c = dialSet(t, added[0])
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(server, "part") // it is carried
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	relay.Reset(c)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that reset: %v", err)
	}
	server.Close()
}

// What listens has an address of the loopback: other machines do not reach it.
func TestListensOnTheLoopbackOnly(t *testing.T) {
	s := set(t, host{}, Rule{TCP, 0, 1}, Rule{UDP, 0, 2})
	if _, err := s.Add([]Rule{{TCP, 0, 3}}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		var at net.Addr
		if e.listener != nil {
			at = e.listener.Addr()
		} else {
			at = e.packets.LocalAddr()
		}
		if ip, _, err := net.SplitHostPort(at.String()); err != nil || ip != "127.0.0.1" {
			t.Errorf("%s listens on %v", e.rule, at)
		}
	}
	if len(s.all) != 3 {
		t.Errorf("%d listen", len(s.all))
	}
}

// A client that goes while its connection is being made ends the attempt, and the
// end of the forward ends all.
func TestSilentGuest(t *testing.T) {
	g := silent{make(chan context.Context)}
	s := set(t, g, Rule{TCP, 0, 1})
	c := dialSet(t, s.Rules()[0])
	if end, ok := (<-g.dialing).Deadline(); !ok || time.Until(end) > dialTimeout {
		t.Errorf("the attempt may take until %v", end)
	}
	relay.Reset(c)
	polltest.True(t, "a client that has gone holds no place", func() bool { return len(s.slots) == 0 })
	c = dialSet(t, s.Rules()[0])
	<-g.dialing
	if err := s.Remove(s.Rules()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("a connection of a forward that was removed: %v", err)
	}
}

// So many connections there are, and no more; those that end make room.
func TestBounds(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := set(t, host{}, Rule{TCP, 0, uint16(l.Addr().(*net.TCPAddr).Port)})
	for range maxConnections {
		s.slots <- struct{}{}
	}
	if err := try(s.Rules()[0]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one too many: %v", err)
	}
	<-s.slots
	_ = dialSet(t, s.Rules()[0])
	if c, err := l.Accept(); err != nil {
		t.Errorf("the one that there is room for: %v", err)
	} else {
		c.Close()
	}
}

// What waits for a guest that takes nothing is bounded over all clients, and counts no
// longer when they have gone.
func TestDatagramsOfASilentGuest(t *testing.T) {
	s := new(Set)
	var all []*flow
	waiting := 0
	for range maxFlows {
		f := &flow{queue: make(chan []byte, flowQueue)}
		for range 2 * flowQueue {
			s.enqueue(f, make([]byte, maxDatagram))
		}
		waiting += len(f.queue) * maxDatagram
		all = append(all, f)
	}
	if n := int(s.queued.Load()); n > maxQueued || n < maxQueued-maxDatagram || n != waiting {
		t.Errorf("%d bytes are counted, %d wait for the guest, %d may", n, waiting, maxQueued)
	}
	for _, f := range all {
		f.drop(s)
	}
	if n := s.queued.Load(); n != 0 {
		t.Errorf("%d bytes are counted where none wait", n)
	}
}

func TestAddAndRemove(t *testing.T) {
	s := set(t, host{}, Rule{TCP, 0, upper(t)})
	first := s.Rules()[0]
	if _, err := s.Add([]Rule{{TCP, 0, 7}, {TCP, first.Host, 8}}); err == nil || !strings.Contains(err.Error(), "it is forwarded already, to port ") {
		t.Errorf("a port that is taken: %v", err)
	}
	if got := s.Rules(); len(got) != 1 {
		t.Errorf("half of it was added: %v", got)
	}
	if err := s.Remove([]Rule{first, {TCP, 1, 0}}); err == nil {
		t.Error("what is not forwarded can be removed")
	}
	if got := s.Rules(); len(got) != 1 {
		t.Errorf("half of it was removed: %v", got)
	}
	if err := s.Remove([]Rule{{TCP, first.Host, 0}}); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", first.Host)); err == nil {
		c.Close()
		t.Error("a forward that was removed is there")
	}
}
