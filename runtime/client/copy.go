package client

import (
	"cmp"
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
	// Progress, if not nil, is called with what was copied so far.
	Progress func(protocol.Copied)
}

// ErrSilent is the error of a copy whose agent neither sends nor takes anything.
var ErrSilent = errors.New("the guest's agent has stopped answering in the middle of a copy")

// CopyIn copies a file or directory of the host into the guest. conn is closed.
func CopyIn(ctx context.Context, conn net.Conn, local string, to *protocol.CopyIn, o CopyOptions) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	silence := o.silence()
	out := &impatient{Conn: conn, silence: silence}
	request := *to
	request.Content, request.Preserve = transfer.IsContent(local), o.Preserve
	if err := protocol.NewWriter(out).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyIn, CopyIn: &request}); err != nil {
		return copied, withCause(ctx, err)
	}
	// A guest that gives up says why and drops the stream. Its word ends the sending:
	// there may be somebody on the way who takes all that is sent.
	sending, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var reply protocol.Copied
	answered := make(chan error, 1)
	go func() {
		answered <- silent(protocol.NewReader(conn).Expect(protocol.FrameReply, &reply))
		stop(errAnswered)
		_ = conn.SetWriteDeadline(time.Unix(1, 0)) // it need not take what is being written
	}()
	sent, sendErr := transfer.Send(sending, &stoppable{out, sending}, local, transfer.SendOptions{Devices: true, Progress: o.Progress})
	if sendErr != nil && !transfer.Broken(sendErr) && sending.Err() == nil {
		return sent, sendErr // this host's own
	}
	_ = conn.SetReadDeadline(time.Now().Add(silence))
	err = <-answered
	switch early := errors.Is(context.Cause(sending), errAnswered); {
	case sendErr == nil || isRefusal(err) || early && err != nil:
	case early:
		err = fmt.Errorf("copying %s: %w: %w", local, protocol.ErrMalformed, errAnswered)
	default:
		err = sendErr // which names the file
	}
	if err == nil && sent.Failed == 0 && (reply.Files != sent.Files || reply.Bytes != sent.Bytes) {
		err = fmt.Errorf("%w: the guest says that %d files of %d bytes have come, and %d of %d bytes were sent",
			protocol.ErrMalformed, reply.Files, reply.Bytes, sent.Files, sent.Bytes)
	}
	// What could not be read is this host's to tell.
	copied = reply
	copied.Skipped, copied.SkippedNames, copied.Failed, copied.FailedNames = sent.Skipped, sent.SkippedNames, sent.Failed, sent.FailedNames
	return copied, withCause(ctx, ofGuest(err))
}

var errAnswered = errors.New("the guest has answered before all was sent")

// stoppable is a writer that ends with a context.
type stoppable struct {
	net.Conn
	ctx context.Context // of one copy only
}

func (s *stoppable) Write(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.Conn.Write(p)
}

// CopyOut copies a file or directory of the guest, remote, an absolute path, to
// the host. The guest says what is in it, and nothing else: see
// [transfer.Receive]. conn is closed.
func CopyOut(ctx context.Context, conn net.Conn, remote, local string, o CopyOptions) (copied protocol.Copied, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	timed := &impatient{Conn: conn, silence: o.silence()}
	if err := protocol.NewWriter(timed).Message(protocol.FrameRequest, &protocol.Request{
		Version: protocol.Version, Op: protocol.OpCopyOut, CopyOut: &protocol.CopyOut{Path: remote}}); err != nil {
		return copied, withCause(ctx, err)
	}
	copied, err = transfer.Receive(ctx, protocol.NewReader(timed), local, transfer.Options{
		Name: transfer.BaseName(remote), Content: transfer.IsContent(remote),
		Preserve: o.Preserve, MaxSize: o.MaxSize, Progress: o.Progress})
	return copied, withCause(ctx, ofGuest(err))
}

// ofGuest tells the guest's errors, which are about its paths, from this host's.
func ofGuest(err error) error {
	if isRefusal(err) {
		return fmt.Errorf("in the guest: %w", err)
	}
	return err
}

// silence is how long the agent may keep a copy waiting.
func (o *CopyOptions) silence() time.Duration { return cmp.Or(o.Silence, 2*time.Minute) }

// impatient is a connection whose reads and writes take no longer than they may.
// The time that passes between them, while the host is busy, does not count.
type impatient struct {
	net.Conn
	silence          time.Duration
	readSet, written time.Time // when the deadlines were set
}

// extend sets a new deadline when the old one has lost a part of its time: setting
// one for each piece would cost more than it is worth.
func (c *impatient) extend(last *time.Time, set func(time.Time) error) {
	if now := time.Now(); now.Sub(*last) > c.silence/8 {
		*last = now
		_ = set(now.Add(c.silence)) // one that knows none waits on
	}
}

func (c *impatient) Read(p []byte) (int, error) {
	c.extend(&c.readSet, c.SetReadDeadline)
	n, err := c.Conn.Read(p)
	return n, silent(err)
}

func (c *impatient) Write(p []byte) (int, error) {
	c.extend(&c.written, c.SetWriteDeadline)
	n, err := c.Conn.Write(p)
	return n, silent(err)
}

func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrSilent
	}
	return err
}
