//go:build linux

package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Whatever is on the network may answer.
func FuzzDHCP(f *testing.F) {
	to := make([]byte, dhcpOptions)
	answer := make([]byte, dhcpOptions, dhcpOptions+8)
	answer[0] = 2
	f.Add(append(answer, 53, 1, 2, 1, 4, 255, 255, 255, 0, 255))
	f.Add(append(answer, 53, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := parseDHCP(b, to); r != nil {
			l, err := r.lease()
			if err == nil && l.end != 0 && (l.renew <= 0 || l.rebind < l.renew || l.end < l.rebind) {
				t.Errorf("a lease of %v is renewed after %v and %v", l.end, l.renew, l.rebind)
			}
		}
	})
}

func TestLeaseTimes(t *testing.T) {
	seconds := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for _, tt := range []struct {
		name               string
		options            map[byte][]byte
		renew, rebind, end time.Duration
	}{
		{"half and seven eighths, when it does not say", map[byte][]byte{51: seconds(80)}, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		{"as it says", map[byte][]byte{51: seconds(80), 58: seconds(10), 59: seconds(20)}, 10 * time.Second, 20 * time.Second, 80 * time.Second},
		{"nonsense", map[byte][]byte{51: seconds(80), 58: seconds(90), 59: seconds(20)}, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		{"a century and more", map[byte][]byte{51: seconds(1<<32 - 8)}, (1<<31 - 4) * time.Second, (1<<32 - 8 - (1<<29 - 1)) * time.Second, (1<<32 - 8) * time.Second},
		{"for ever", map[byte][]byte{51: seconds(1<<32 - 1), 58: seconds(10)}, 0, 0, 0},
		{"nothing said", map[byte][]byte{}, 0, 0, 0},
		{"malformed", map[byte][]byte{51: {1}}, 0, 0, 0},
	} {
		tt.options[1] = []byte{255, 255, 255, 0}
		l, err := (&dhcpReply{options: tt.options}).lease()
		if err != nil || l.renew != tt.renew || l.rebind != tt.rebind || l.end != tt.end {
			t.Errorf("%s: %+v, %v", tt.name, l, err)
		}
	}
}

// dhcpServer answers on one end of a cable.
type dhcpServer struct {
	conn *net.UDPConn
	// asked gets each request for an address, by whom it holds.
	asked chan netip.Addr
}

// serve gives 10.9.9.0/24 addresses from first on, each for two seconds, until
// refuse has been asked to extend one.
func (s *dhcpServer) serve(first byte, refuse int) {
	b := make([]byte, 1500)
	for {
		n, err := s.conn.Read(b)
		if err != nil {
			return
		}
		m := b[:n]
		reply := make([]byte, dhcpOptions)
		copy(reply, m[:dhcpOptions])
		reply[0] = 2
		copy(reply[16:], []byte{10, 9, 9, first})
		kind := byte(dhcpOffer)
		if m[dhcpOptions+2] == dhcpRequest {
			kind = dhcpAck
			held := netip.AddrFrom4([4]byte(m[12:16]))
			if held != netip.IPv4Unspecified() {
				if refuse--; refuse == 0 {
					kind, first = dhcpNak, first+1
				}
			}
			s.asked <- held
		}
		reply = append(reply, 53, 1, kind, 54, 4, 10, 9, 9, 1, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 0, 2, 58, 4, 0, 0, 0, 1, 255)
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
		if _, err := s.conn.WriteToUDP(reply, to); err != nil {
			return
		}
	}
}

// An address is asked for again before its time is over, and another one taken
// when the server wants that.
func TestLeaseIsRenewed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making network interfaces takes root")
	}
	// A thread of its own, which ends with its network namespace and the test.
	done := make(chan error, 1)
	addresses := make(chan string, 8)
	server := &dhcpServer{asked: make(chan netip.Addr, 8)}
	go func() {
		runtime.LockOSThread()
		done <- inNetwork(server, addresses)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer server.conn.Close()
	go server.serve(50, 2)
	none, first, second := netip.IPv4Unspecified(), netip.MustParseAddr("10.9.9.50"), netip.MustParseAddr("10.9.9.51")
	for i, want := range []netip.Addr{none, first, first, none, second} {
		if got := <-server.asked; got != want {
			t.Fatalf("request %d is by %v, want %v", i+1, got, want)
		}
	}
	for i, want := range []string{"10.9.9.50/24", "10.9.9.50/24", "10.9.9.51/24"} {
		if got := <-addresses; got != want {
			t.Errorf("address %d is %s, want %s", i+1, got, want)
		}
	}
}

// inNetwork makes a cable between two networks, with a server's socket at one end
// and a client at the other.
func inNetwork(server *dhcpServer, addresses chan<- string) error {
	there, err := newNetwork()
	if err != nil {
		return err
	}
	defer there.Close()
	here, err := newNetwork()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := ip("link", "add", interfaceName, "type", "veth", "peer", "name", "server", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), there.Fd())); err != nil {
		return err
	}
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := errors.Join(ip("link", "set", "server", "up"), ip("address", "add", "10.9.9.1/24", "dev", "server")); err != nil {
		return err
	}
	everywhere := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(unix.BindToDevice(int(fd), "server"), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		}), err)
	}}
	conn, err := everywhere.ListenPacket(context.Background(), "udp4", ":67")
	if err != nil {
		return err
	}
	server.conn = conn.(*net.UDPConn)
	if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	// The client's socket is of this network, whatever thread uses it.
	c, err := newDHCPClient(interfaceName)
	if err != nil {
		return err
	}
	go func() {
		_ = c.follow(func(n *protocol.Interface) error {
			addresses <- n.Address
			return configureInterface(c.fd, interfaceName, n)
		})
	}()
	return nil
}

// newNetwork takes this thread to a network of its own.
func newNetwork() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return os.Open("/proc/thread-self/ns/net")
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %q: %w: %s", args, err, out)
	}
	return nil
}

// Clouds give an address of its own network, whose gateway is outside, and say what
// that network carries.
func TestGatewayOutside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making network interfaces takes root")
	}
	l, err := (&dhcpReply{address: [4]byte{10, 9, 9, 7}, options: map[byte][]byte{1: {255, 255, 255, 255}, 3: {10, 9, 9, 1}, 26: {0x05, 0xb4}}}).lease()
	if err != nil {
		t.Fatal(err)
	}
	var routes []byte
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // which ends with its network
		done <- func() error {
			network, err := newNetwork()
			if err != nil {
				return err
			}
			defer network.Close()
			if err := ip("link", "add", interfaceName, "type", "veth", "peer", "name", "other"); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for range 2 { // a lease is applied again
				if err := configureInterface(fd, interfaceName, l.network); err != nil {
					return err
				}
			}
			routes, err = exec.Command("sh", "-c", "ip route; cat /sys/class/net/eth0/mtu; ip link show eth0").CombinedOutput()
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"default via 10.9.9.1 dev eth0", "10.9.9.1 dev eth0 scope link", "mtu 1460"} {
		if !strings.Contains(string(routes), want) {
			t.Errorf("no %q in\n%s", want, routes)
		}
	}
}
