package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/abdul-abdi/lumina/runtime/rawconn"
)

// Switch joins guests to a network of their own, which leads nowhere else.
type Switch struct {
	mu    sync.Mutex
	ports []*port
	done  sync.WaitGroup
}

// port is a guest's place at the switch.
type port struct {
	mac  net.HardwareAddr
	conn *rawconn.Conn
}

// NewSwitch makes a switch without ports.
func NewSwitch() *Switch { return &Switch{} }

// Connect adds a port for the guest with a MAC address: the only one that it can
// send from. The file is the driver's end of the link, as [Network.Device] is.
func (s *Switch) Connect(mac net.HardwareAddr) (*os.File, error) {
	conn, device, err := newFrames()
	if err != nil {
		return nil, fmt.Errorf("making a port of the switch: %w", err)
	}
	p := &port{mac: mac, conn: conn}
	s.mu.Lock()
	s.ports = append(s.ports, p)
	s.mu.Unlock()
	s.done.Go(func() { s.receive(p) })
	return device, nil
}

// Close cuts all links.
func (s *Switch) Close() error {
	s.mu.Lock()
	var err error
	for _, p := range s.ports {
		err = errors.Join(err, p.conn.Close())
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *Switch) receive(from *port) {
	frame := make([]byte, maxFrame+1)
	for {
		n, err := from.conn.Read(frame)
		if err != nil {
			return
		}
		if n < header.EthernetMinimumSize || n > maxFrame {
			continue
		}
		h := header.Ethernet(frame[:n])
		if !bytes.Equal([]byte(h.SourceAddress()), from.mac) {
			continue // nobody speaks for another
		}
		to := []byte(h.DestinationAddress())
		s.mu.Lock()
		ports := s.ports
		s.mu.Unlock()
		for _, p := range ports {
			if p != from && (to[0]&1 == 1 || bytes.Equal(to, p.mac)) {
				// What a guest that does not read has no room for is dropped: the others
				// do not wait for it.
				_ = p.conn.Offer(frame[:n])
			}
		}
	}
}
