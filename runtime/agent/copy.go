package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
)

// CopyOptions are how to copy.
type CopyOptions struct {
	// Preserve gives what is there the mode and owner of the source, and what is
	// new that owner.
	Preserve bool
	// MaxSize bounds what a copy out writes, in bytes; 0 for half of what is
	// free where it goes.
	MaxSize int64
	// Silence is how long the agent may keep a copy waiting; 0 for two minutes.
	Silence time.Duration
	// Progress, when given, is told what was copied so far.
	Progress func(protocol.Copied)
}

// ErrSilent is the error of a copy whose agent neither sends nor takes anything.
var ErrSilent = errors.New("the guest's agent has stopped answering in the middle of a copy")

// CopyIn copies a file or directory of the host into the guest. conn is closed.
func CopyIn(ctx context.Context, conn net.Conn, local string, to *protocol.CopyIn, o CopyOptions) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn = newImpatient(conn, o.Silence)
	request := *to
	request.Content, request.Preserve = transfer.IsContent(local), o.Preserve
	if err := protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyIn, CopyIn: &request}); err != nil {
		return copied, withCause(ctx, err)
	}
	sent, sendErr := transfer.Send(ctx, conn, local, transfer.SendOptions{Devices: true, Progress: o.Progress})
	if sendErr != nil && !transfer.Broken(sendErr) {
		return sent, withCause(ctx, sendErr) // this host's own
	}
	// A guest that gives up says why and drops the stream: its word explains
	// the failure to send.
	err = protocol.NewReader(conn).Expect(protocol.FrameReply, &copied)
	if sendErr != nil && !isRefusal(err) {
		err = fmt.Errorf("copying %s: %w", local, sendErr)
	}
	// What could not be read is this host's to tell.
	copied.Skipped, copied.SkippedNames, copied.Failed, copied.FailedNames = sent.Skipped, sent.SkippedNames, sent.Failed, sent.FailedNames
	return copied, withCause(ctx, err)
}

// CopyOut copies a file or directory of the guest, remote, an absolute path, to
// the host. The guest says what is in it, and nothing else: see
// [transfer.Receive]. conn is closed.
func CopyOut(ctx context.Context, conn net.Conn, remote, local string, o CopyOptions) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn = newImpatient(conn, o.Silence)
	if err := protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyOut, CopyOut: &protocol.CopyOut{Path: remote}}); err != nil {
		return copied, withCause(ctx, err)
	}
	copied, err = transfer.Receive(ctx, protocol.NewReader(conn), local, transfer.Options{
		Name: transfer.BaseName(remote), Content: transfer.IsContent(remote),
		Preserve: o.Preserve, MaxSize: o.MaxSize, Progress: o.Progress})
	return copied, withCause(ctx, err)
}

// impatient is a connection whose reads and writes take no longer than they may.
// The time that passes between them, while the host is busy, does not count.
type impatient struct {
	net.Conn
	silence time.Duration
	set     time.Time // when the deadline was set
}

func newImpatient(conn net.Conn, silence time.Duration) net.Conn {
	if silence == 0 {
		silence = 2 * time.Minute
	}
	return &impatient{Conn: conn, silence: silence}
}

// extend sets a new deadline when the old one has lost a part of its time: setting
// one for each piece would cost more than it is worth.
func (c *impatient) extend() {
	if now := time.Now(); now.Sub(c.set) > c.silence/8 {
		c.set = now
		_ = c.SetDeadline(now.Add(c.silence)) // one that knows none waits on
	}
}

func (c *impatient) Read(p []byte) (int, error) {
	c.extend()
	n, err := c.Conn.Read(p)
	return n, silent(err)
}

func (c *impatient) Write(p []byte) (int, error) {
	c.extend()
	n, err := c.Conn.Write(p)
	return n, silent(err)
}

func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrSilent
	}
	return err
}
