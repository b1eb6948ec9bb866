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

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// A connection to a supervisor's socket begins with one byte, its kind.
//
// kindAgent: everything that follows is a stream of the agent's protocol; the
// supervisor carries its bytes to and from the guest and looks at none.
//
// kindCounted: the same, and one end of a stream socket comes with the byte. When
// its other end is shut down, the supervisor writes a JSON controlReply to it, with
// what the network has done since the connection began.
//
// kindControl: one JSON controlRequest, one JSON controlReply.
const (
	kindAgent   = 'a'
	kindCounted = 'n'
	kindControl = 'c'
)

// wireVersion counts the changes to what follows the first byte of kindAgent and
// kindCounted. Each version can stop the sessions of the others.
const wireVersion = 1

const (
	// explainTimeout bounds the question why a VM ended.
	explainTimeout = time.Second
	// maxControl bounds a control message, in bytes.
	maxControl = 1 << 20
)

type controlOp string

const (
	opStatus  controlOp = "status"
	opStop    controlOp = "stop"
	opWait    controlOp = "wait" // for the end
	opNetwork controlOp = "network"
	opWhy     controlOp = "why" // why the VM ended; waits for its end
)

type controlRequest struct {
	Op controlOp `json:"op"`
}

type controlReply struct {
	Error   string                 `json:"error,omitempty"`
	Status  *Status                `json:"status,omitempty"`
	Crash   *crash                 `json:"crash,omitempty"`
	Network *runtime.NetworkReport `json:"network,omitempty"`
}

// crash is how a VM ended that nobody stopped.
type crash struct {
	Message string `json:"message"`
	Console string `json:"console"`
}

func dialSocket(ctx context.Context, dir string, kind byte, files ...*os.File) (net.Conn, error) {
	conn, err := supervise.Dial(ctx, dir, kind, files...)
	if errors.Is(err, supervise.ErrGone) {
		// Its supervisor was killed, or has just ended.
		if err := cleanDir(dir); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("session %q: %w: its supervisor has ended", filepath.Base(dir), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to session %q: %w", filepath.Base(dir), err)
	}
	return conn, nil
}

func (s *Session) control(ctx context.Context, req controlRequest) (*controlReply, error) {
	conn, err := s.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.reply(ctx, conn)
}

// ask opens a connection with a control request.
func (s *Session) ask(ctx context.Context, req controlRequest) (net.Conn, error) {
	conn, err := dialSocket(ctx, s.dir, kindControl)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		conn.Close()
		return nil, s.asking(err)
	}
	return conn, nil
}

// asking says what an error of a control connection means.
func (s *Session) asking(err error) error {
	if supervise.Unread(err) {
		return fmt.Errorf("session %q: %w: its supervisor has ended", s.Info.SID, ErrNotFound)
	}
	return fmt.Errorf("asking session %q: %w", s.Info.SID, err)
}

// reply reads the answer, and closes conn.
func (s *Session) reply(ctx context.Context, conn net.Conn) (*controlReply, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reply := new(controlReply)
	err := json.NewDecoder(io.LimitReader(conn, maxControl)).Decode(reply)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, s.asking(err)
	case reply.Error != "":
		return nil, errors.New(reply.Error)
	}
	return reply, nil
}
