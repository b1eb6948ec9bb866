package network

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/abdul-abdi/lumina/runtime/rawconn"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// maxFrame is the longest Ethernet frame, in bytes.
const maxFrame = MTU + header.EthernetMinimumSize

// link is the NIC's link to the guest: a socket that carries one Ethernet frame a
// datagram. It is the network's end of it, and a link endpoint of its stack.
type link struct {
	conn     *rawconn.Conn
	gateway  tcpip.Address
	mac      tcpip.LinkAddress
	counters *counters
	acks     *acks

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	frames     sync.Pool
}

// newLink makes a link. The file is the driver's end of it.
func newLink(c *counters, announced bool) (*link, *os.File, error) {
	conn, theirs, err := newFrames()
	if err != nil {
		return nil, nil, err
	}
	if announced {
		conn.Announce()
	}
	l := &link{conn: conn, gateway: gatewayAddress, mac: gatewayMAC, counters: c}
	l.acks = newAcks(ackDelay, l.writeFrame)
	l.frames.New = func() any { b := make([]byte, 0, maxFrame); return &b }
	return l, theirs, nil
}

// newFrames makes two connected datagram sockets: ours, and a file for a driver.
func newFrames() (*rawconn.Conn, *os.File, error) {
	ours, theirs, err := socketpair.New(syscall.SOCK_DGRAM)
	if err != nil {
		return nil, nil, err
	}
	// More than the default is a gift. On a Mac, what is received has to be given
	// several times the room of what is sent, or bursts are lost.
	const toSend, toReceive = 1 << 20, 4 << 20
	_, _ = ours.SetWriteBuffer(toSend), ours.SetReadBuffer(toReceive)
	_ = syscall.SetsockoptInt(int(theirs.Fd()), syscall.SOL_SOCKET, syscall.SO_SNDBUF, toSend)
	_ = syscall.SetsockoptInt(int(theirs.Fd()), syscall.SOL_SOCKET, syscall.SO_RCVBUF, toReceive)
	conn, err := rawconn.New(ours)
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

var _ stack.LinkEndpoint = (*link)(nil)

// burst is how many frames are taken before others of the CPU's goroutines
// are let run: those that carry the frames on.
const burst = 16

// receive takes the guest's frames until the link is cut.
func (l *link) receive() {
	buf := make([]byte, maxFrame+1)
	for i := 1; ; i++ {
		if i%burst == 0 {
			runtime.Gosched()
		}
		n, err := l.conn.Read(buf)
		if err != nil {
			return
		}
		l.counters.txPackets.Add(1)
		l.counters.txBytes.Add(int64(n))
		if n > maxFrame || !l.wanted(buf[:n]) {
			continue
		}
		data := buffer.MakeWithData(append([]byte(nil), buf[header.EthernetMinimumSize:n]...))
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
		l.dispatcher.DeliverNetworkPacket(header.Ethernet(buf[:n]).Type(), pkt)
		pkt.DecRef()
	}
}

// wanted says whether the stack may see a frame. It takes every address for its
// own: it must not answer pings in the name of others, nor say that the guest's
// address is taken. That it answers for the rest of the guest's network lets
// connections there be refused at once.
func (l *link) wanted(frame []byte) bool {
	if len(frame) < header.EthernetMinimumSize {
		return false
	}
	payload := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		h := header.ARP(payload)
		return h.IsValid() && tcpip.AddrFromSlice(h.ProtocolAddressTarget()) != guestAddress
	case header.IPv4ProtocolNumber:
		h := header.IPv4(payload)
		if len(payload) < header.IPv4MinimumSize {
			return false
		}
		return h.TransportProtocol() != header.ICMPv4ProtocolNumber || h.DestinationAddress() == l.gateway ||
			icmpError(payload)
	}
	return false
}

// icmpError says whether a packet is about another one: the stack wants to know
// that a port of the guest is closed.
func icmpError(packet []byte) bool {
	h := header.IPv4(packet)
	n := int(h.HeaderLength())
	return n >= header.IPv4MinimumSize && len(packet) > n && header.ICMPv4Type(packet[n]) == header.ICMPv4DstUnreachable
}

// WritePackets is part of [stack.LinkWriter]. It waits for a guest that does
// not read: the stack is that guest's alone.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, p := range list.AsSlice() {
		if err := l.write(p); err != nil {
			return n, &tcpip.ErrClosedForSend{}
		}
		n++
	}
	return n, nil
}

func (l *link) write(p *stack.PacketBuffer) error {
	frame := l.frames.Get().(*[]byte)
	defer l.frames.Put(frame)
	b := (*frame)[:0]
	b = append(b, p.EgressRoute.RemoteLinkAddress...)
	b = append(b, l.mac...)
	b = binary.BigEndian.AppendUint16(b, uint16(p.NetworkProtocolNumber))
	for _, s := range p.AsSlices() {
		b = append(b, s...)
	}
	*frame = b
	return l.acks.send(b)
}

func (l *link) writeFrame(b []byte) error {
	l.counters.rxPackets.Add(1)
	l.counters.rxBytes.Add(int64(len(b)))
	_, err := l.conn.Write(b)
	return err
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dispatcher == nil && d != nil {
		l.dispatcher = d
		go l.receive()
	}
}

func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

func (l *link) MTU() uint32                             { return MTU }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 } // written apart
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}

// Capabilities is part of [stack.NetworkLinkEndpoint]. A socket loses no bits:
// checksums of what the guest sends are not verified.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}
