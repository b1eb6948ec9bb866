// Package client is the host's side of the guest's agent: it speaks package
// protocol over one stream an operation. It does not know how the stream came
// about.
package client

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/relay"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

// call sends a request and waits for its Reply. conn is closed.
func call(ctx context.Context, conn net.Conn, req *protocol.Request, reply any) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req.Version = protocol.Version
	err := protocol.NewWriter(conn).Message(protocol.FrameRequest, req)
	if err == nil {
		err = protocol.NewReader(conn).Expect(protocol.FrameReply, reply)
	}
	return withCause(ctx, err)
}

// withCause returns why ctx ended in place of what that broke. What the guest has
// chosen of an error's text becomes printable here.
func withCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return printable.Error(err)
}

// isRefusal says whether err is the agent's word.
func isRefusal(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e)
}

// Configure makes the booted guest the one that c describes.
func Configure(ctx context.Context, conn net.Conn, c *protocol.Configure) (*protocol.Configured, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reply, err := configure(conn, c)
	return reply, withCause(ctx, err)
}

func configure(conn net.Conn, c *protocol.Configure) (*protocol.Configured, error) {
	reply := new(protocol.Configured)
	return reply, tellTime(conn, &protocol.Request{Op: protocol.OpConfigure, Configure: c}, reply)
}

// tellTime makes a request in which the guest asks for the time.
func tellTime(conn net.Conn, req *protocol.Request, reply any) error {
	req.Version = protocol.Version
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	err := w.Message(protocol.FrameRequest, req)
	if err == nil {
		err = r.Expect(protocol.FrameReply, nil)
	}
	if err == nil {
		err = w.Clock(time.Now())
	}
	if err == nil {
		err = r.Expect(protocol.FrameReply, reply)
	}
	return err
}

// SetClock sets the guest's clock to this host's.
func SetClock(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return withCause(ctx, tellTime(conn, &protocol.Request{Op: protocol.OpClock}, nil))
}

// Measure has the guest note what is free on its disks, and says whether a limit has
// left it none.
func Measure(ctx context.Context, conn net.Conn) (none bool, err error) {
	var left protocol.RoomLeft
	err = call(ctx, conn, &protocol.Request{Op: protocol.OpRoom, Room: &protocol.Room{}}, &left)
	return left.None, err
}

// Limit tells the guest how many bytes the host has left for its disks, and what it may
// take at least, see [protocol.Room].
func Limit(ctx context.Context, conn net.Conn, left, least int64) error {
	return call(ctx, conn, &protocol.Request{Op: protocol.OpRoom, Room: &protocol.Room{Left: &left, Least: least}}, &protocol.RoomLeft{})
}

// PrepareSnapshot returns when the guest is ready for a snapshot: it has read everything
// that was sent before, nothing is under way in either direction, and the first
// operation that it does next is Configure. conn is closed.
func PrepareSnapshot(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r := protocol.NewReader(conn)
	err := protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpSnapshot})
	if err == nil {
		err = r.Expect(protocol.FrameReply, nil)
	}
	if err == nil {
		// The agent drops the stream as its last word; there is no answer to that.
		_, _ = io.Copy(io.Discard, r.Rest())
	}
	return withCause(ctx, err)
}

// Shutdown ends the guest in order. It returns when everything is on disk; the
// VM ends right after.
func Shutdown(ctx context.Context, conn net.Conn) error {
	return call(ctx, conn, &protocol.Request{Op: protocol.OpShutdown}, nil)
}

// Detach starts a process that outlives the stream and returns its id.
func Detach(ctx context.Context, conn net.Conn, req *protocol.Exec) (string, error) {
	detached := *req
	detached.Detach = true
	var started protocol.Started
	err := call(ctx, conn, &protocol.Request{Op: protocol.OpExec, Exec: &detached}, &started)
	if err == nil && !isID(started.ID) {
		return "", fmt.Errorf("%w: the agent calls the process %.80q", protocol.ErrMalformed, started.ID)
	}
	return started.ID, err
}

// isID says whether a guest's name of a process is one: callers print it, and pass
// it on as an argument.
func isID(s string) bool {
	const most = 64
	letter := func(c rune) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
	return s != "" && len(s) <= most && letter(rune(s[0])) &&
		!strings.ContainsFunc(s, func(c rune) bool { return !letter(c) && !strings.ContainsRune("-_.", c) })
}

// Processes lists what Exec and Detach started.
func Processes(ctx context.Context, conn net.Conn) ([]protocol.Process, error) {
	var reply protocol.Processes
	if err := call(ctx, conn, &protocol.Request{Op: protocol.OpProcesses}, &reply); err != nil {
		return nil, err
	}
	for i := range reply.Processes {
		if err := check(&reply.Processes[i]); err != nil {
			return nil, err
		}
	}
	return reply.Processes, nil
}

// check says what of a process cannot be.
func check(p *protocol.Process) error {
	switch {
	case !isID(p.ID):
		return fmt.Errorf("%w: the agent calls a process %.80q", protocol.ErrMalformed, p.ID)
	case p.PID < 0 || p.Age < 0:
		return fmt.Errorf("%w: process %s has number %d and age %v", protocol.ErrMalformed, p.ID, p.PID, p.Age)
	case p.Exit != nil && (p.Exit.Code < 0 || p.Exit.Code > 255):
		return fmt.Errorf("%w: process %s has ended with %d", protocol.ErrMalformed, p.ID, p.Exit.Code)
	}
	return nil
}

// Kill sends a signal to the process group of a process.
func Kill(ctx context.Context, conn net.Conn, id string, signal int) error {
	return call(ctx, conn, &protocol.Request{Op: protocol.OpKill, Kill: &protocol.Kill{ID: id, Signal: signal}}, nil)
}

// Changes ends every process of the guest and writes what they changed of its
// image, as a tar archive. conn is closed.
func Changes(ctx context.Context, conn net.Conn, w io.Writer) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return withCause(ctx, output(conn, &protocol.Request{Op: protocol.OpChanges}, Stdio{Stdout: w}))
}

// Logs writes the output of a detached process. conn is closed.
func Logs(ctx context.Context, conn net.Conn, id string, follow bool, std Stdio) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return withCause(ctx, output(conn, &protocol.Request{Op: protocol.OpLogs, Logs: &protocol.Logs{ID: id, Follow: follow}}, std))
}

// output sends a request that is answered by output and, after it, a Reply.
func output(conn net.Conn, req *protocol.Request, std Stdio) error {
	req.Version = protocol.Version
	err := protocol.NewWriter(conn).Message(protocol.FrameRequest, req)
	for r := protocol.NewReader(conn); err == nil; {
		var t protocol.FrameType
		var payload []byte
		if t, payload, err = r.Next(); err != nil {
			break
		}
		switch t {
		case protocol.FrameStdout:
			err = writeTo(std.Stdout, payload, "standard output")
		case protocol.FrameStderr:
			err = writeTo(std.Stderr, payload, "standard error")
		case protocol.FrameReply:
			return protocol.Decode(payload, nil)
		case protocol.FrameError:
			return protocol.DecodeError(payload)
		default:
			err = fmt.Errorf("%w: type %d from the agent", protocol.ErrMalformed, t)
		}
	}
	return err
}

// Dial connects to a TCP port of the guest's loopback, before ctx ends. The returned
// connection takes over conn, which is closed on an error.
func Dial(ctx context.Context, conn net.Conn, port uint16) (net.Conn, error) {
	return dialPort(ctx, conn, protocol.OpDial, port)
}

// Datagrams connects to a UDP port of the guest's loopback, as Dial does. Each Write
// and each Read is one datagram.
func Datagrams(ctx context.Context, conn net.Conn, port uint16) (net.Conn, error) {
	joined, err := dialPort(ctx, conn, protocol.OpDatagrams, port)
	if err != nil {
		return nil, err
	}
	return &packets{Conn: joined, in: bufio.NewReader(joined)}, nil
}

func dialPort(ctx context.Context, conn net.Conn, op protocol.Op, port uint16) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	joined, err := join(conn, &protocol.Request{Version: protocol.Version, Op: op, Dial: &protocol.Dial{Port: port}})
	if !stop() || err != nil {
		conn.Close()
		return nil, withCause(ctx, cmp.Or(err, net.ErrClosed))
	}
	return joined, nil
}

// packets is a stream of datagrams.
type packets struct {
	net.Conn
	in *bufio.Reader
}

func (p *packets) Read(b []byte) (int, error)  { return protocol.ReadDatagram(p.in, b) }
func (p *packets) Write(b []byte) (int, error) { return len(b), protocol.WriteDatagram(p.Conn, b) }

// Echo makes conn, a stream to the agent, one that comes back: what a round trip
// costs at least.
func Echo(conn net.Conn) (net.Conn, error) {
	return join(conn, &protocol.Request{Version: protocol.Version, Op: protocol.OpEcho})
}

// join sends a request whose reply is followed by raw bytes.
func join(conn net.Conn, request *protocol.Request) (net.Conn, error) {
	if err := protocol.NewWriter(conn).Message(protocol.FrameRequest, request); err != nil {
		return nil, err
	}
	r := protocol.NewReader(conn)
	if err := r.Expect(protocol.FrameReply, nil); err != nil {
		return nil, err
	}
	return &dialed{Conn: conn, rest: r.Rest()}, nil
}

// dialed reads on where the reader of the reply stopped.
type dialed struct {
	net.Conn
	rest io.Reader
}

func (d *dialed) Read(p []byte) (int, error) { return d.rest.Read(p) }

// CloseWrite passes on a half-close, where the transport has one.
func (d *dialed) CloseWrite() error {
	if c, ok := d.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return d.Close()
}

// Reset tells the guest that the connection was cut off.
func (d *dialed) Reset() error {
	relay.Reset(d.Conn)
	return nil
}
