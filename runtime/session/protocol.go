package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// A connection to a supervisor's socket begins with one byte, its kind.
//
// kindAgent: everything that follows is a stream of the agent's protocol; the
// supervisor carries its bytes to and from the guest and looks at none.
//
// kindCounted: the same, and one end of a stream socket comes with the byte. When
// its other end is shut down, the supervisor writes a JSON controlReply to it, with
// what the network has done since the connection began, and what went wrong on the host.
//
// kindControl: one JSON controlRequest, one JSON controlReply.
const (
	kindAgent   = 'a'
	kindCounted = 'n'
	kindControl = 'c'
)

// protocolVersion counts the changes to what follows the first byte of kindAgent and
// kindCounted, and to session.json. Each version can stop the sessions of the others.
const protocolVersion = 2

const (
	// explainTimeout bounds the question why a VM ended.
	explainTimeout = time.Second
	// controlTimeout bounds a question that the supervisor answers at once.
	controlTimeout = 10 * time.Second
	// maxControl bounds a control message, in bytes.
	maxControl = 1 << 20
)

type controlOp string

const (
	opInfo    controlOp = "info" // what session.json should say
	opStatus  controlOp = "status"
	opStop    controlOp = "stop"
	opWait    controlOp = "wait" // for the end
	opNetwork controlOp = "network"
	opForward controlOp = "forward"
	opWhy     controlOp = "why"   // why the VM ended; waits for its end
	opPing    controlOp = "ping"  // whether the supervisor answers
	opAgent   controlOp = "agent" // whether the guest's agent does
)

type controlRequest struct {
	Op controlOp `json:"op"`
	// Of opForward.
	Add    []forward.Rule `json:"add,omitempty"`
	Remove []forward.Rule `json:"remove,omitempty"`
}

type controlReply struct {
	Error    string          `json:"error,omitempty"`
	Info     *Info           `json:"info,omitempty"`
	Status   *Status         `json:"status,omitempty"`
	Crash    *Crash          `json:"crash,omitempty"`
	Network  *network.Report `json:"network,omitempty"`
	Forwards []forward.Rule  `json:"forwards,omitempty"`
	// HostError is that of a kindCounted, beside its Network.
	HostError string `json:"host_error,omitempty"`
}

func dialSocket(ctx context.Context, dir string, kind byte, files ...*os.File) (net.Conn, error) {
	conn, err := supervise.Dial(ctx, dir, kind, files...)
	if errors.Is(err, supervise.ErrGone) {
		// Its socket comes when its VM has answered, and goes first at the end. Of one that
		// crashed it is known by then how.
		if !alive(dir) || hasCrashed(dir) {
			return nil, ended(dir)
		}
		return nil, fmt.Errorf("session %q: %w: it is starting, or being stopped", filepath.Base(dir), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to session %q: %w", filepath.Base(dir), err)
	}
	return conn, nil
}

// control asks a session's supervisor.
func control(ctx context.Context, dir string, req controlRequest) (*controlReply, error) {
	conn, err := dialSocket(ctx, dir, kindControl)
	if err != nil {
		return nil, err
	}
	// Before the first byte: a supervisor may not read any.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		conn.Close()
		return nil, asking(ctx, dir, err)
	}
	return reply(ctx, dir, conn)
}

// asking says what an error of a control connection means.
func asking(ctx context.Context, dir string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case supervise.Unread(err):
		return fmt.Errorf("session %q: %w: its supervisor has ended", filepath.Base(dir), ErrNotFound)
	}
	return fmt.Errorf("asking session %q: %w", filepath.Base(dir), err)
}

// reply reads the answer, and closes conn.
func reply(ctx context.Context, dir string, conn net.Conn) (*controlReply, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reply := new(controlReply)
	err := json.NewDecoder(io.LimitReader(conn, maxControl)).Decode(reply)
	switch {
	case err != nil:
		return nil, asking(ctx, dir, err)
	case reply.Error != "":
		return nil, errors.New(reply.Error)
	}
	return reply, nil
}
