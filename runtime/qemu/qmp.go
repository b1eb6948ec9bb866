package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// monitor speaks QMP, QEMU's control protocol (docs/interop/qmp-spec), over a
// socket that only QEMU and this process have.
type monitor struct {
	conn *net.UnixConn
	in   *bufio.Reader
	// replies has what is no event once follow reads; nil before.
	replies chan message
	// patience bounds how long a command waits for its reply then; 0: it waits.
	patience time.Duration
	sent     int // commands
}

// maxMessage bounds a line of QEMU's, in bytes: a guest may have taken it over.
const maxMessage = 64 << 10

// message is anything that QEMU says.
type message struct {
	ID     int             `json:"id"` // of the command that it replies to
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	Data   eventData       `json:"data"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

// eventData is what is read of all events' data (qapi/run-state.json,
// block-core.json, migration.json).
type eventData struct {
	Status string `json:"status"` // MIGRATION
	// BLOCK_IO_ERROR
	Device    string `json:"device"`
	Node      string `json:"node-name"`
	Operation string `json:"operation"`
	Cause     string `json:"reason"` // SHUTDOWN, too
	// VSERPORT_CHANGE
	ID   string `json:"id"`
	Open bool   `json:"open"`
}

// openMonitor reads the greeting and leaves the negotiation mode.
func openMonitor(conn *net.UnixConn) (*monitor, error) {
	m := &monitor{conn: conn, in: bufio.NewReaderSize(conn, maxMessage)}
	if _, err := m.in.ReadSlice('\n'); err != nil {
		return nil, fmt.Errorf("reading QEMU's greeting: %w", err)
	}
	return m, m.command(nil, "qmp_capabilities", nil)
}

// read reads one message: QEMU writes each on a line.
func (m *monitor) read() (reply message, err error) {
	line, err := m.in.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &reply)
	}
	return reply, err
}

// command runs a command and waits for its return; file, if any, goes along.
func (m *monitor) command(file *os.File, name string, arguments any) error {
	_, err := m.call(file, name, arguments)
	return err
}

// call runs a command and waits for what it returns.
func (m *monitor) call(file *os.File, name string, arguments any) (json.RawMessage, error) {
	m.sent++
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{name, arguments, m.sent})
	if err != nil {
		return nil, err
	}
	var rights []byte
	if file != nil {
		rights = syscall.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.conn.WriteMsgUnix(line, rights, nil); err != nil {
		return nil, fmt.Errorf("telling QEMU to %s: %w", name, err)
	}
	var late <-chan time.Time
	if m.patience > 0 {
		t := time.NewTimer(m.patience)
		defer t.Stop()
		late = t.C
	}
	for {
		reply, err := m.receive(late)
		if err != nil {
			return nil, fmt.Errorf("telling QEMU to %s: %w", name, err)
		}
		switch {
		case reply.ID != m.sent: // to a command that was given up
		case reply.Error != nil:
			return nil, fmt.Errorf("telling QEMU to %s: %s", name, reply.Error.Description)
		case reply.Return != nil:
			return reply.Return, nil
		}
	}
}

func (m *monitor) receive(late <-chan time.Time) (reply message, err error) {
	if m.replies == nil {
		return m.read()
	}
	select {
	case reply, ok := <-m.replies:
		if !ok {
			return reply, errors.New("QEMU has ended")
		}
		return reply, nil
	case <-late:
		return reply, fmt.Errorf("QEMU has not answered for %v", m.patience)
	}
}

// maxReplies is how many replies wait for who reads them: those to commands that were
// given up, and one.
const maxReplies = 16

// follow reads until QEMU has ended, calls event for each event, and then over. It must
// always read, because QEMU buffers what is not read.
func (m *monitor) follow(event func(message), over func()) {
	m.replies = make(chan message, maxReplies)
	go func() {
		defer over()
		defer close(m.replies)
		for {
			reply, err := m.read()
			if err != nil {
				return
			}
			if reply.Event != "" {
				event(reply)
				continue
			}
			select {
			case m.replies <- reply:
			default: // the caller gave up on the command that this answers
			}
		}
	}()
}

// goesOn says whether the machine runs, or will. A machine may have stopped before
// there was anybody to tell an event to.
func (m *monitor) goesOn() (bool, error) {
	reply, err := m.call(nil, "query-status", nil)
	var state struct{ Status string }
	if err == nil {
		err = json.Unmarshal(reply, &state)
	}
	switch state.Status {
	case "internal-error", "io-error", "guest-panicked", "paused":
		return false, err
	}
	return true, err
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
func (p *process) save(ctx context.Context, m *monitor, file *os.File) error {
	p.saving.Store(true)
	if err := setCapabilities(m, fileMemory, capability{"events", true}); err != nil {
		return err
	}
	if err := m.command(file, "getfd", map[string]string{"fdname": "state"}); err != nil {
		return err
	}
	if err := m.command(nil, "migrate", map[string]string{"uri": "fd:state"}); err != nil {
		return err
	}
	for {
		select {
		case status := <-p.notes.migrated:
			switch status {
			case "completed":
				return nil
			case "failed", "cancelled":
				return errors.New("QEMU could not save the machine")
			}
		case <-p.done:
			return errors.Join(errors.New("QEMU ended while it saved the machine"), p.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// load makes a machine that was started for it go on from a state.
func load(m *monitor, file *os.File) error {
	if err := setCapabilities(m, fileMemory); err != nil {
		return err
	}
	if err := m.command(file, "getfd", map[string]string{"fdname": "state"}); err != nil {
		return err
	}
	return m.command(nil, "migrate-incoming", map[string]string{"uri": "fd:state"})
}
