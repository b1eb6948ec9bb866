package session

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/abdul-abdi/lumina/runtime/client"
)

// answer answers one request.
func (s *supervisor) answer(ctx context.Context, conn net.Conn) {
	var req controlRequest
	if err := json.NewDecoder(io.LimitReader(conn, maxControl)).Decode(&req); err != nil {
		return
	}
	// What takes long ends with the client. It says nothing more.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	reply := controlReply{}
	if err := s.do(ctx, req, &reply); err != nil {
		reply = controlReply{Error: err.Error()}
	}
	// A client that has gone needs no answer.
	_ = json.NewEncoder(conn).Encode(reply)
}

func (s *supervisor) do(ctx context.Context, req controlRequest, reply *controlReply) error {
	switch req.Op {
	case opInfo:
		reply.Info = &s.info
	case opStatus:
		s.crashed(ctx) // the client sees the record of it
		reply.Status = s.status()
	case opStop:
		s.askStop()
		<-s.gone
	case opNetwork:
		reply.Network = s.vm.Network()
	case opForward:
		if c := s.crashed(ctx); c != nil {
			return c.error(s.info.SID)
		}
		return s.changeForwards(req, reply)
	case opWait:
		select {
		case <-s.ended:
			reply.Crash = s.crash
		case <-s.stop:
		case <-ctx.Done():
		}
	case opWhy:
		limit := time.NewTimer(explainTimeout)
		defer limit.Stop()
		select {
		case <-s.ended:
			reply.Crash = s.crash
		case <-limit.C:
			return fmt.Errorf("the VM is running")
		}
	case opPing:
	case opAgent:
		return s.pingAgent(ctx)
	default:
		return fmt.Errorf("unknown operation %q", req.Op)
	}
	return nil
}

// crashed returns how the VM has ended, once that is written down; nil while it runs, and
// when it was asked to end.
func (s *supervisor) crashed(ctx context.Context) *Crash {
	select {
	case <-s.vm.Done():
	default:
		return nil
	}
	select {
	case <-s.ended:
		return s.crash
	case <-s.gone:
	case <-ctx.Done():
	}
	return nil
}

func (s *supervisor) status() *Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Status{SID: s.info.SID, Name: s.info.Name, Labels: s.info.Labels, Image: s.info.Image, State: Running,
		Uptime: int64(time.Since(s.info.Started).Seconds()), ActiveExecs: s.active, Forwards: s.forwards.Rules(), HostError: s.vm.Report()}
}

// changeForwards removes and adds forwards. What is added first is undone when the
// rest cannot be done.
func (s *supervisor) changeForwards(req controlRequest, reply *controlReply) error {
	added, err := s.forwards.Add(req.Add)
	if err != nil {
		return err
	}
	if err := s.forwards.Remove(req.Remove); err != nil {
		_ = s.forwards.Remove(added)
		return err
	}
	reply.Forwards = s.forwards.Rules()
	return nil
}

// pingAgent returns when the guest's agent has sent something back.
func (s *supervisor) pingAgent(ctx context.Context) error {
	stream, err := s.vm.Dial(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	echo, err := client.Echo(stream)
	if err == nil {
		_, err = echo.Write([]byte{0})
	}
	if err == nil {
		_, err = io.ReadFull(echo, make([]byte, 1))
	}
	return err
}
