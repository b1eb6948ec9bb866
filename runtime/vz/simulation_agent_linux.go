package vz

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// agentUp greets the agent that comes up next, and then makes the connection that
// it would make.
func (m *simulated) agentUp() {
	m.mu.Lock()
	waits := m.greeted
	m.greeted = true
	m.mu.Unlock()
	if waits {
		return // the guest reset before it read that hello, and finds it now
	}
	_ = protocol.SendHello(m.port)
	err := protocol.ReceiveHello(m.port)
	m.mu.Lock()
	m.greeted = false
	m.mu.Unlock()
	if err != nil {
		return
	}
	m.accepts <- m.connection(0)
}

// connection is one of the guest's vsock: a hello each, then its serial port's mux.
// The guest takes all of its connections for one: the streams of a later one get
// numbers above from.
func (m *simulated) connection(from uint32) net.Conn {
	here, file, err := pair()
	if err != nil {
		return nil
	}
	there, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.relayed != nil {
		m.relayed.Close()
	}
	m.relayed = there
	over := make(chan struct{})
	m.over = over
	go func() {
		defer close(over)
		defer there.Close()
		if protocol.ReceiveHello(there) == nil && protocol.SendHello(there) == nil {
			go func() { _ = renumber(m.port, there, from) }()
			_ = renumber(there, m.port, -from)
		}
	}()
	return here
}

// renumber copies frames of the mux, see PROTOCOL.md, and adds to their streams'
// numbers.
func renumber(to io.Writer, from io.Reader, add uint32) error {
	in := bufio.NewReader(from)
	for {
		frame := make([]byte, 8)
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		binary.BigEndian.PutUint32(frame, binary.BigEndian.Uint32(frame)+add)
		if frame[4]&flagData != 0 {
			n := int(frame[5])<<16 | int(frame[6])<<8 | int(frame[7])
			frame = append(frame, make([]byte, n)...)
			if _, err := io.ReadFull(in, frame[8:]); err != nil {
				return err
			}
		}
		if _, err := to.Write(frame); err != nil {
			return err
		}
	}
}

func (m *simulated) listen(uint32) (listener, error) { return simulatedListener{m}, nil }

type simulatedListener struct{ m *simulated }

func (l simulatedListener) accept() (net.Conn, error) { return <-l.m.accepts, nil }

// close is never answered once the machine has stopped.
func (l simulatedListener) close() { <-make(chan struct{}) }

// connect is never answered once the machine has stopped.
func (m *simulated) connect(uint32) (net.Conn, error) {
	select {
	case <-m.stopped:
		<-make(chan struct{})
	default:
	}
	return m.connection(1 << 16), nil
}
