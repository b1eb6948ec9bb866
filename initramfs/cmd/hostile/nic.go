//go:build linux

package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

func init() { commands["nic"] = attackNetwork }

// attackNetwork puts frames on the network card, to all of the addresses given, from
// all of them, of every kind; then floods; and ends with 0 when all was sent.
func attackNetwork(_ *guest, s *stream, targets []string) {
	code := 1
	if n, err := openNIC(); err == nil {
		go n.drain()
		n.toAll(targets)
		n.floods(targets)
		code = 0
	}
	_ = s.Last(protocol.FrameExit, protocol.Exit{Code: code})
}

// nic is a socket that sends and receives frames of the first network card.
type nic struct {
	fd  int
	mac net.HardwareAddr
}

// The host's end of the card, and the guest's address.
var (
	gatewayMAC = net.HardwareAddr("\x02lumin")
	everybody  = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	own        = netip.MustParseAddr("10.0.2.15")
)

func openNIC() (*nic, error) {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil, err
	}
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(control)
	up, err := unix.NewIfreq("eth0")
	if err != nil {
		return nil, err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(control, unix.SIOCSIFFLAGS, up); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300) // all kinds
	if err != nil {
		return nil, err
	}
	return &nic{fd, card.HardwareAddr}, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: card.Index})
}

// drain takes what comes.
func (n *nic) drain() {
	b := make([]byte, 64<<10)
	for {
		if _, err := unix.Read(n.fd, b); err != nil {
			return
		}
	}
}

// send waits where there is no room.
func (n *nic) send(frame []byte) {
	for range 100 {
		if _, err := unix.Write(n.fd, frame); err != unix.ENOBUFS && err != unix.EAGAIN {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *nic) ethernet(to, from net.HardwareAddr, kind uint16, payload []byte) {
	b := append(append([]byte{}, to...), from...)
	n.send(append(binary.BigEndian.AppendUint16(b, kind), payload...))
}

func (n *nic) toAll(targets []string) {
	var v4, v6 []netip.Addr
	for _, t := range targets {
		if a, err := netip.ParseAddr(t); err == nil && a.Is4() {
			v4 = append(v4, a)
		} else if err == nil {
			v6 = append(v6, a)
		}
	}
	for _, to := range v4 {
		for _, from := range append([]netip.Addr{own, to}, v4...) {
			for _, packet := range packets(from, to) {
				n.ethernet(gatewayMAC, n.mac, 0x0800, packet)
			}
			syn := packet(from, to, 6, tcpSYN(4000, 80), nil)
			n.ethernet(everybody, n.mac, 0x0800, syn)
			n.ethernet(gatewayMAC, gatewayMAC, 0x0800, syn) // in the name of the gateway
			n.ethernet(gatewayMAC, n.mac, 0x8100, append([]byte{0, 1, 8, 0}, syn...))
			for operation := range uint16(3) {
				arp := []byte{0, 1, 8, 0, 6, 4, 0, byte(operation)}
				arp = append(append(append(append(arp, n.mac...), from.AsSlice()...), gatewayMAC...), to.AsSlice()...)
				n.ethernet(everybody, n.mac, 0x0806, arp)
			}
		}
	}
	for _, to := range v6 {
		for _, transport := range []struct {
			next    byte
			payload []byte
		}{{6, tcpSYN(4000, 80)}, {17, udp(4000, 80, "x")}, {58, []byte{128, 0, 0, 0, 0, 0, 0, 0}}, {43, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, tcpSYN(4000, 80)...)}} {
			b := []byte{0x60, 0, 0, 0}
			b = binary.BigEndian.AppendUint16(b, uint16(len(transport.payload)))
			b = append(append(append(b, transport.next, 64), to.AsSlice()...), to.AsSlice()...)
			n.ethernet(gatewayMAC, n.mac, 0x86dd, append(b, transport.payload...))
			n.ethernet(gatewayMAC, n.mac, 0x0800, packet(own, netip.MustParseAddr("10.0.2.2"), 41, append(b, transport.payload...), nil))
		}
	}
	for size := 0; size < 64<<10; size += 97 {
		n.send(make([]byte, size))
	}
}

// packets are of every kind that a packet from one address to another can have.
func packets(from, to netip.Addr) [][]byte {
	inner := packet(own, to, 6, tcpSYN(4001, 80), nil)
	route := append([]byte{131, 7, 4}, to.AsSlice()...) // loose source route
	gateway := netip.MustParseAddr("10.0.2.2")
	all := [][]byte{
		packet(from, to, 6, tcpSYN(4000, 80), nil),
		packet(from, to, 17, udp(4000, 80, "x"), nil),
		packet(from, to, 17, udp(4000, 53, nasty), nil),
		packet(from, to, 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}, nil),
		packet(from, to, 1, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, inner...), nil),
		packet(from, to, 4, inner, nil),
		packet(from, to, 47, append([]byte{0, 0, 8, 0}, inner...), nil),
		packet(from, to, 132, make([]byte, 12), nil),
		packet(from, gateway, 6, tcpSYN(4000, 80), route),
		packet(from, gateway, 4, inner, nil),
	}
	// In two parts, of which the first ends within the header of TCP; and one whose
	// length is not its own.
	whole := packet(from, to, 6, tcpSYN(4002, 80), nil)
	first, second := append([]byte{}, whole[:28]...), append(append([]byte{}, whole[:20]...), whole[28:]...)
	first[6], second[7] = 0x20, 1
	for _, b := range [][]byte{first, second} {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		checksum(b)
	}
	long, short := append([]byte{}, whole...), append([]byte{}, whole...)
	binary.BigEndian.PutUint16(long[2:], 0xffff)
	binary.BigEndian.PutUint16(short[2:], 21)
	long[0], short[8] = 0x4f, 0
	return append(all, first, second, long, short)
}

// packet is of IPv4.
func packet(from, to netip.Addr, protocol byte, payload, options []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := []byte{byte(0x45 + len(options)/4), 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0}
	b = append(append(append(append(b, from.AsSlice()...), to.AsSlice()...), options...), payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	checksum(b)
	return b
}

func checksum(b []byte) {
	b[10], b[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < int(b[0]&15)*4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
}

func tcpSYN(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	return append(b, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0)
}

func udp(from, to uint16, payload string) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// floods send many frames of the kinds that make the other side remember something.
func (n *nic) floods(targets []string) {
	gateway := netip.MustParseAddr("10.0.2.2")
	reachable := netip.MustParseAddr(targets[0])
	noise := make([]byte, 1200)
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return
	}
	defer random.Close()
	for i := range uint32(5000) {
		if i%100 == 0 {
			_, _ = random.Read(noise)
		}
		port := uint16(1024 + i)
		n.ethernet(gatewayMAC, n.mac, 0x0800, packet(own, reachable, 6, tcpSYN(port, 81), nil))
		n.ethernet(gatewayMAC, n.mac, 0x0800, packet(own, reachable, 17, udp(port, 1024+port/2, "x"), nil))
		// A part of a packet of which no other comes.
		part := packet(own, reachable, 17, noise, nil)
		binary.BigEndian.PutUint16(part[4:], port)
		part[6] = 0x20
		checksum(part)
		n.ethernet(gatewayMAC, n.mac, 0x0800, part)
		// Questions: a name that points to itself, then noise. And DHCP.
		n.ethernet(gatewayMAC, n.mac, 0x0800, packet(own, gateway, 17, udp(port, 53, "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), nil))
		n.ethernet(gatewayMAC, n.mac, 0x0800, packet(own, gateway, 17, udp(port, 53, string(noise[:i%600])), nil))
		discover := append([]byte{1, 1, 6, 0}, noise[:232]...)
		discover = append(append(discover, 99, 130, 83, 99, 53, 1, 1, 12, 255), noise[:i%300]...)
		n.ethernet(everybody, n.mac, 0x0800, packet(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), 17, udp(68, 67, string(discover)), nil))
	}
}
