//go:build linux

package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/uevent"
)

// dhcpClient gets and keeps an address for an interface, which every host that an
// exported disk runs on gives this way (RFC 2131).
type dhcpClient struct {
	fd          int
	hardware    [6]byte
	transaction uint32  // of the last message
	address     [4]byte // zero: none yet
}

// lease is an address that a server gave, and for how long.
type lease struct {
	network         *protocol.Interface
	address, server [4]byte
	// Since it was given: its server is asked, any server is asked, it is over;
	// 0 for one without an end.
	renew, rebind, end time.Duration
}

func newDHCPClient(name string) (*dhcpClient, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &dhcpClient{fd: fd}
	if err := c.setUp(name); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *dhcpClient) setUp(name string) error {
	if err := linkUp(c.fd, name); err != nil {
		return err
	}
	r := hardwareRequest{}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	if err := ioctl(uintptr(c.fd), unix.SIOCGIFHWADDR, unsafe.Pointer(&r)); err != nil {
		return err
	}
	for i := range c.hardware {
		c.hardware[i] = byte(r.addr.Data[i])
	}
	c.transaction = binary.BigEndian.Uint32(c.hardware[2:])
	// The socket has no address yet; the interface says where it sends.
	return errors.Join(
		unix.BindToDevice(c.fd, name),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}),
		unix.Bind(c.fd, &unix.SockaddrInet4{Port: 68}),
	)
}

// The kinds of messages.
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpAck      = 5
	dhcpNak      = 6
)

const (
	dhcpOptions = 240 // where they begin, behind the cookie
	dhcpTries   = 15  // of 2 s: bridges take up to 30 s to forward
)

// everyone is whom to ask who does not know a server.
var everyone = [4]byte{255, 255, 255, 255}

var (
	errNoServer = errors.New("no DHCP server answered")
	errRefused  = errors.New("the DHCP server refuses the address")
)

// get asks for a lease.
func (c *dhcpClient) get() (*lease, error) {
	c.address = [4]byte{}
	offer, err := c.ask(everyone, dhcpDiscover, dhcpOffer, nil, dhcpTries)
	if err != nil {
		return nil, err
	}
	request := append([]byte{50, 4}, offer.address[:]...)
	if server := offer.options[54]; len(server) == 4 {
		request = append(append(request, 54, 4), server...)
	}
	ack, err := c.ask(everyone, dhcpRequest, dhcpAck, request, dhcpTries)
	if err != nil {
		return nil, err
	}
	l, err := ack.lease()
	if err == nil {
		c.address = l.address
	}
	return l, err
}

// keep waits until a lease is to be renewed and renews it. An error says that it
// is lost.
func (c *dhcpClient) keep(l *lease) (*lease, error) {
	given := time.Now()
	for wait := l.renew; ; {
		time.Sleep(wait)
		server := l.server
		if time.Since(given) >= l.rebind {
			server = everyone
		}
		ack, err := c.ask(server, dhcpRequest, dhcpAck, nil, 1)
		if err == nil && ack.address == l.address {
			return ack.lease()
		}
		left := l.end - time.Since(given)
		if errors.Is(err, errRefused) || left <= 0 {
			return nil, errors.Join(err, errors.New("the lease is over"))
		}
		// RFC 2131, 4.4.5: half of the time that is left, at least a minute.
		if before := l.rebind - time.Since(given); before > 0 {
			left = before
		}
		wait = min(max(left/2, time.Minute), max(l.end-time.Since(given), 0))
	}
}

// ask sends a message of a kind to a server until an answer of another comes.
func (c *dhcpClient) ask(server [4]byte, kind, want byte, options []byte, tries int) (*dhcpReply, error) {
	c.transaction++ // what comes late is for another
	m := make([]byte, dhcpOptions, 300)
	copy(m, []byte{1, 1, 6, 0})
	binary.BigEndian.PutUint32(m[4:], c.transaction)
	copy(m[12:], c.address[:])
	if c.address == ([4]byte{}) {
		m[10] = 0x80 // answers to all: there is no address to answer to
	}
	copy(m[28:], c.hardware[:])
	copy(m[236:], []byte{99, 130, 83, 99})
	m = append(append(append(m, 53, 1, kind, 55, 4, 1, 3, 6, 26), options...), 255)
	m = append(m, make([]byte, 300-len(m))...)
	answer := make([]byte, 1500)
	for range tries {
		if err := unix.Sendto(c.fd, m, 0, &unix.SockaddrInet4{Port: 67, Addr: server}); err != nil {
			return nil, err
		}
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			n, err := unix.Read(c.fd, answer)
			if err == unix.EAGAIN {
				break
			}
			if err != nil && err != unix.EINTR {
				return nil, err
			}
			r := parseDHCP(answer[:max(n, 0)], m)
			switch {
			case r == nil:
			case bytes.Equal(r.options[53], []byte{want}):
				return r, nil
			case kind == dhcpRequest && bytes.Equal(r.options[53], []byte{dhcpNak}):
				return nil, errRefused
			}
		}
	}
	return nil, errNoServer
}

type dhcpReply struct {
	address [4]byte
	options map[byte][]byte
}

// lease reads what a server gave.
func (r *dhcpReply) lease() (*lease, error) {
	mask := r.options[1]
	if len(mask) != 4 {
		return nil, errors.New("the DHCP server gave no netmask")
	}
	bits := 0
	for m := binary.BigEndian.Uint32(mask); m&(1<<31) != 0; m <<= 1 {
		bits++
	}
	n := &protocol.Interface{Address: netip.PrefixFrom(netip.AddrFrom4(r.address), bits).String()}
	if router := r.options[3]; len(router) >= 4 {
		n.Gateway = netip.AddrFrom4([4]byte(router[:4])).String()
	}
	for servers := r.options[6]; len(servers) >= 4; servers = servers[4:] {
		n.DNS = append(n.DNS, netip.AddrFrom4([4]byte(servers[:4])).String())
	}
	// What a network of a cloud can carry, less or more than Ethernet's; 576 is
	// what every IPv4 host takes.
	if mtu := r.options[26]; len(mtu) == 2 && binary.BigEndian.Uint16(mtu) >= 576 {
		n.MTU = int(binary.BigEndian.Uint16(mtu))
	}
	l := &lease{network: n, address: r.address, server: everyone}
	if server := r.options[54]; len(server) == 4 {
		l.server = [4]byte(server)
	}
	// All ones means for ever. So does no time at all: there is no moment to renew at.
	if l.end = r.seconds(51); l.end == 0 || l.end == (1<<32-1)*time.Second {
		l.end = 0
		return l, nil
	}
	l.renew, l.rebind = r.seconds(58), r.seconds(59)
	if l.renew == 0 || l.rebind < l.renew || l.end < l.rebind {
		l.renew, l.rebind = l.end/2, l.end-l.end/8
	}
	return l, nil
}

// seconds is an option that is a time; 0 when there is none.
func (r *dhcpReply) seconds(option byte) time.Duration {
	b := r.options[option]
	if len(b) != 4 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
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

// networkAlone brings the interface up in its own time, and keeps it up: neither
// the agent nor the console wait for a server that may not be there.
func (s *System) networkAlone() {
	// Drivers may take their time; with no interface at all, nobody waits for this.
	_ = uevent.Wait(time.Minute, func() (bool, error) {
		_, err := os.Stat("/sys/class/net/" + interfaceName)
		return err == nil, nil
	})
	if _, err := os.Stat("/sys/class/net/" + interfaceName); err != nil {
		return
	}
	c, err := newDHCPClient(interfaceName)
	if err == nil {
		defer unix.Close(c.fd)
		err = c.follow(s.apply)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lumina-init: configuring %s: %v\n", interfaceName, err)
	}
}

// follow applies leases, one after the other, until one has no end. A first one
// that nobody gives is an error.
func (c *dhcpClient) follow(apply func(*protocol.Interface) error) error {
	l, err := c.get()
	if err != nil {
		return err
	}
	for {
		if err := apply(l.network); err != nil {
			return err
		}
		if l.end == 0 {
			return nil
		}
		if l, err = c.keep(l); err == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "lumina-init: renewing the address of %s: %v\n", interfaceName, err)
		for l, err = c.get(); err != nil; l, err = c.get() {
			time.Sleep(time.Minute) // the network may be gone; it may come back
		}
	}
}

// apply configures what a lease says, where that is new.
func (s *System) apply(n *protocol.Interface) error {
	known := s.network != nil && slices.Equal(s.network.DNS, n.DNS)
	if err := s.configureNetwork(n); err != nil || known {
		return err
	}
	var resolv bytes.Buffer
	for _, server := range n.DNS {
		fmt.Fprintf(&resolv, "nameserver %s\n", server)
	}
	return writeName("/etc/resolv.conf", resolv.String())
}
