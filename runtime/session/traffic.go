package session

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// Meanwhile is what happened to a session while a command ran in it.
type Meanwhile struct {
	// Network is what the guest has done with it, all of its commands together; nil
	// when it has none.
	Network *network.Report
	// HostError is what went wrong on the host, whether the command has noticed it or
	// not; "" for nothing.
	HostError string
}

// Counted returns the guest to run one command in, and a function, which must be
// called, that says what happened since that began.
//
// Beside the command's connection this takes none: one end of a pair of sockets
// goes along with the first byte, see kindCounted.
func (s *Session) Counted() (runtime.Guest, func(context.Context) (Meanwhile, error), error) {
	ours, theirs, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return runtime.Guest{}, nil, fmt.Errorf("making a socket: %w", err)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, kindCounted, theirs) }
	meanwhile := func(ctx context.Context) (Meanwhile, error) {
		theirs.Close() // the supervisor has its own by now, or there is none
		if err := ours.CloseWrite(); err != nil {
			ours.Close()
			return Meanwhile{}, asking(ctx, s.dir, err)
		}
		ctx, cancel := context.WithTimeoutCause(ctx, controlTimeout, s.silent("supervisor", controlTimeout))
		defer cancel()
		reply, err := reply(ctx, s.dir, ours)
		if err != nil {
			return Meanwhile{}, err
		}
		return Meanwhile{reply.Network, reply.HostError}, nil
	}
	return runtime.NewGuest(s.Info.Config, dial, s.explain), meanwhile, nil
}

// receiveKind reads the first byte of a client's connection and what socket came
// with it, if any.
func receiveKind(conn *net.UnixConn) (kind byte, passed *net.UnixConn, err error) {
	var b [1]byte
	oob := make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return b[0], nil, err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return b[0], nil, err
	}
	passed, err = socketpair.Conn(os.NewFile(uintptr(fds[0]), "passed"))
	return b[0], passed, err
}

// tellMeanwhile tells a client, when it asks, what happened since it connected.
func (s *supervisor) tellMeanwhile(conn *net.UnixConn, network *network.Report, hostError string) {
	defer conn.Close()
	_, _ = io.Copy(io.Discard, conn)
	reply := controlReply{Network: s.vm.Network().Since(network), HostError: s.vm.ReportSince(hostError)}
	// A client that has gone needs no answer.
	_ = json.NewEncoder(conn).Encode(reply)
}
