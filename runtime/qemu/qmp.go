package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// monitor speaks QMP, QEMU's control protocol (docs/interop/qmp-spec), over a
// socket that only QEMU and this process have.
type monitor struct {
	conn *net.UnixConn
	in   *json.Decoder
	// replies has what is no event once dropEvents reads; nil before.
	replies chan message
}

// message is anything that QEMU says.
type message struct {
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	Data   struct {
		Status string `json:"status"`
	} `json:"data"`
	Error *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

// openMonitor reads the greeting and leaves the negotiation mode.
func openMonitor(conn *net.UnixConn) (*monitor, error) {
	m := &monitor{conn: conn, in: json.NewDecoder(conn)}
	var greeting map[string]any
	if err := m.in.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("reading QEMU's greeting: %w", err)
	}
	return m, m.command(nil, "qmp_capabilities", nil)
}

// command runs a command and waits for its return; file, if any, goes along.
func (m *monitor) command(file *os.File, name string, arguments any) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, arguments})
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = syscall.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.conn.WriteMsgUnix(line, rights, nil); err != nil {
		return fmt.Errorf("telling QEMU to %s: %w", name, err)
	}
	for {
		reply, err := m.receive()
		if err != nil {
			return fmt.Errorf("telling QEMU to %s: %w", name, err)
		}
		switch {
		case reply.Error != nil:
			return fmt.Errorf("telling QEMU to %s: %s", name, reply.Error.Description)
		case reply.Return != nil:
			return nil
		}
	}
}

func (m *monitor) receive() (reply message, err error) {
	if m.replies == nil {
		return reply, m.in.Decode(&reply)
	}
	reply, ok := <-m.replies
	if !ok {
		err = errors.New("QEMU has ended")
	}
	return reply, err
}

// dropEvents reads events as they come, so that QEMU need not keep them for
// somebody who asks for nothing.
func (m *monitor) dropEvents() {
	m.replies = make(chan message)
	go func() {
		defer close(m.replies)
		for {
			var reply message
			if err := m.in.Decode(&reply); err != nil {
				return
			}
			if reply.Event == "" {
				m.replies <- reply
			}
		}
	}()
}

// saved waits until a migration has ended.
func (m *monitor) saved() error {
	for {
		var e message
		if err := m.in.Decode(&e); err != nil {
			return fmt.Errorf("waiting for QEMU to save the machine: %w", err)
		}
		if e.Event != "MIGRATION" {
			continue
		}
		switch e.Data.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return errors.New("QEMU could not save the machine")
		}
	}
}

type capability struct {
	Capability string `json:"capability"`
	State      bool   `json:"state"`
}

// fileMemory says that memory is a file and not part of the state.
var fileMemory = capability{"x-ignore-shared", true}

func setCapabilities(m *monitor, all ...capability) error {
	return m.command(nil, "migrate-set-capabilities", map[string]any{"capabilities": all})
}

// save writes the state of all devices to file; memory that is a shared file
// is left out. The machine has stopped when it returns.
func save(ctx context.Context, conn *net.UnixConn, file *os.File) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m, err := openMonitor(conn)
	if err != nil {
		return err
	}
	if err := setCapabilities(m, fileMemory, capability{"events", true}); err != nil {
		return err
	}
	if err := m.command(file, "getfd", map[string]string{"fdname": "state"}); err != nil {
		return err
	}
	if err := m.command(nil, "migrate", map[string]string{"uri": "fd:state"}); err != nil {
		return err
	}
	return m.saved()
}

// load makes a machine that was started for it go on from a state.
func load(conn *net.UnixConn, file *os.File) error {
	m, err := openMonitor(conn)
	if err != nil {
		return err
	}
	if err := setCapabilities(m, fileMemory); err != nil {
		return err
	}
	if err := m.command(file, "getfd", map[string]string{"fdname": "state"}); err != nil {
		return err
	}
	return m.command(nil, "migrate-incoming", map[string]string{"uri": "fd:state"})
}
