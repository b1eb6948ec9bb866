//go:build linux

package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// dhcp asks for an address for the first interface, which every host that an
// exported disk runs on gives this way (RFC 2131). The lease is not renewed:
// servers of virtual machines give the same address for as long as they run.
func dhcp(name string) (*protocol.Network, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := linkUp(fd, name); err != nil {
		return nil, err
	}
	mac, err := os.ReadFile("/sys/class/net/" + name + "/address")
	if err != nil {
		return nil, err
	}
	var hardware [6]byte
	if _, err := fmt.Sscanf(string(mac), "%x:%x:%x:%x:%x:%x", &hardware[0], &hardware[1], &hardware[2], &hardware[3], &hardware[4], &hardware[5]); err != nil {
		return nil, err
	}
	// The socket has no address yet; the interface says where it sends.
	if err := errors.Join(
		unix.BindToDevice(fd, name),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: 68}),
	); err != nil {
		return nil, err
	}
	offer, err := dhcpAsk(fd, hardware, 1, nil, 2)
	if err != nil {
		return nil, err
	}
	request := append([]byte{50, 4}, offer.address[:]...)
	request = append(append(request, 54, 4), offer.options[54]...)
	ack, err := dhcpAsk(fd, hardware, 3, request, 5)
	if err != nil {
		return nil, err
	}
	mask := ack.options[1]
	if len(mask) != 4 {
		return nil, errors.New("the DHCP server gave no netmask")
	}
	bits := 0
	for m := binary.BigEndian.Uint32(mask); m&(1<<31) != 0; m <<= 1 {
		bits++
	}
	n := &protocol.Network{Address: netip.PrefixFrom(netip.AddrFrom4(ack.address), bits).String()}
	if router := ack.options[3]; len(router) >= 4 {
		n.Gateway = netip.AddrFrom4([4]byte(router[:4])).String()
	}
	for servers := ack.options[6]; len(servers) >= 4; servers = servers[4:] {
		n.DNS = append(n.DNS, netip.AddrFrom4([4]byte(servers[:4])).String())
	}
	return n, nil
}

type dhcpReply struct {
	address [4]byte
	options map[byte][]byte
}

const (
	dhcpOptions = 240 // where they begin, behind the cookie
	dhcpTries   = 15  // of 2 s: bridges take up to 30 s to forward
)

// dhcpAsk sends a message of a kind until an answer of another comes.
func dhcpAsk(fd int, hardware [6]byte, kind byte, options []byte, want byte) (*dhcpReply, error) {
	m := make([]byte, dhcpOptions, 300)
	copy(m, []byte{1, 1, 6, 0})
	copy(m[4:], hardware[2:]) // the transaction: one at a time
	m[10] = 0x80              // answers to all: there is no address to answer to
	copy(m[28:], hardware[:])
	copy(m[236:], []byte{99, 130, 83, 99})
	m = append(append(append(m, 53, 1, kind, 55, 3, 1, 3, 6), options...), 255)
	m = append(m, make([]byte, 300-len(m))...)
	everyone := &unix.SockaddrInet4{Port: 67, Addr: [4]byte{255, 255, 255, 255}}
	answer := make([]byte, 1500)
	for range dhcpTries {
		if err := unix.Sendto(fd, m, 0, everyone); err != nil {
			return nil, err
		}
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			n, err := unix.Read(fd, answer)
			if err == unix.EAGAIN {
				break
			}
			if err != nil && err != unix.EINTR {
				return nil, err
			}
			if r := parseDHCP(answer[:max(n, 0)], m); r != nil && bytes.Equal(r.options[53], []byte{want}) {
				return r, nil
			}
		}
	}
	return nil, errors.New("no DHCP server answered")
}

// parseDHCP reads an answer to a message; nil when it is none.
func parseDHCP(b, to []byte) *dhcpReply {
	if len(b) < dhcpOptions || b[0] != 2 || !bytes.Equal(b[4:8], to[4:8]) || !bytes.Equal(b[28:34], to[28:34]) || !bytes.Equal(b[236:240], to[236:240]) {
		return nil
	}
	r := &dhcpReply{address: [4]byte(b[16:20]), options: map[byte][]byte{}}
	for b = b[dhcpOptions:]; len(b) >= 2 && b[0] != 255; {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			return nil
		}
		r.options[b[0]] = bytes.Clone(b[2 : 2+n])
		b = b[2+n:]
	}
	return r
}

// networkAlone brings the interface up in its own time: neither the agent nor
// the console wait for a server that may not be there.
func (s *System) networkAlone() {
	if _, err := os.Stat("/sys/class/net/" + interfaceName); err != nil {
		return
	}
	n, err := dhcp(interfaceName)
	if err == nil {
		err = s.configureNetwork(n)
	}
	if err == nil {
		var resolv bytes.Buffer
		for _, server := range n.DNS {
			fmt.Fprintf(&resolv, "nameserver %s\n", server)
		}
		err = writeName("/etc/resolv.conf", resolv.String())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lumina-init: configuring %s: %v\n", interfaceName, err)
	}
}
