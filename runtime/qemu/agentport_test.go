package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// port is QEMU's side of an agent's port.
type port struct {
	t    *testing.T
	ends chan net.Conn // other ends, as they are given
}

func (p *port) change(f *os.File) error {
	conn, err := net.FileConn(f)
	if err == nil {
		p.t.Cleanup(func() { conn.Close() })
		p.ends <- conn
	}
	return err
}

// serve is an agent that says its name on each stream.
func serve(conn net.Conn, name string) {
	if protocol.ReceiveHello(conn) != nil || protocol.SendHello(conn) != nil {
		return
	}
	s := mux.Server(conn)
	for {
		stream, err := s.Accept()
		if err != nil {
			return
		}
		go func() {
			defer stream.Close()
			if _, err := stream.Read(make([]byte, 1)); err == nil {
				_, _ = io.WriteString(stream, name)
				_ = stream.(interface{ CloseWrite() error }).CloseWrite()
				_, _ = io.Copy(io.Discard, stream) // Close drops what is under way
			}
		}()
	}
}

func newTestPort(t *testing.T) (*port, *agentPort, net.Conn) {
	t.Helper()
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	first, err := net.FileConn(there)
	there.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	p := &port{t, make(chan net.Conn, 8)}
	a := newAgentPort(here, p.change)
	t.Cleanup(a.close)
	return p, a, first
}

func ask(t *testing.T, a *agentPort) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := a.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	name, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// Each agent that opens the port gets an end of its own: who dials after a restart
// reaches the new one.
func TestAgentPort(t *testing.T) {
	p, a, first := newTestPort(t)
	go func() { // it comes up later
		time.Sleep(10 * time.Millisecond) // the first dial is rather waiting by then; both orders have to do
		a.opened(true)
		serve(first, "first")
	}()
	for range 2 {
		if got := ask(t, a); got != "first" {
			t.Errorf("%q answers", got)
		}
	}
	go func() {
		serve(<-p.ends, "second")
	}()
	a.opened(false) // a restart
	a.opened(true)
	if got := ask(t, a); got != "second" {
		t.Errorf("after a restart %q answers", got)
	}
	// QEMU leaves out a close that is undone within a second.
	go func() { serve(<-p.ends, "third") }()
	a.opened(true)
	if got := ask(t, a); got != "third" {
		t.Errorf("after another one %q answers", got)
	}
}

// Where nobody has the port open one waits as long as one likes, and the hello is there
// for who comes then.
func TestAgentPortWaits(t *testing.T) {
	p, a, first := newTestPort(t)
	soon := errors.New("soon")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, soon)
	defer cancel()
	if _, err := a.dial(ctx); !errors.Is(err, soon) {
		t.Errorf("nobody there: %v", err)
	}
	go serve(first, "late")
	if got := ask(t, a); got != "late" || len(p.ends) != 0 {
		t.Errorf("%q answers, after %d other ends", got, len(p.ends))
	}
}

// What is no agent, or another lumina's, is told.
func TestAgentPortOfOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		says string
		want error
	}{"another version": {"LUMINA\xff\xff", protocol.ErrVersion}, "none": {"hello, world", protocol.ErrMalformed}} {
		_, a, first := newTestPort(t)
		go func() { _, _ = io.WriteString(first, tt.says) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := a.dial(ctx); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}
