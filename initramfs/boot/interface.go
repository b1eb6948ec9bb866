//go:build linux

package boot

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

const interfaceName = "eth0"

// configureNetwork brings up the loopback and gives the guest's interface, when
// it has one, the addresses that the host chose: no DHCP round trip. A restored
// guest keeps what has not changed.
func (s *System) configureNetwork(n *protocol.Interface) error {
	if s.interfaces == 0 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := linkUp(fd, "lo"); err != nil {
			unix.Close(fd)
			return fmt.Errorf("bringing up lo: %w", err)
		}
		s.interfaces = fd // open for when a restored guest is configured
	}
	if n == nil {
		return nil
	}
	fd := s.interfaces
	if err := setMAC(fd, interfaceName, n.MAC); err != nil {
		return fmt.Errorf("setting the MAC address of %s: %w", interfaceName, err)
	}
	old := s.network
	s.network = n
	if old != nil && old.Address == n.Address && old.Gateway == n.Gateway && old.MTU == n.MTU {
		return nil
	}
	if old == nil && !s.Alone() { // on its own, it may have neighbours
		if err := withoutIPv6(fd, interfaceName); err != nil {
			return fmt.Errorf("switching IPv6 off on %s: %w", interfaceName, err)
		}
	}
	return configureInterface(fd, interfaceName, n)
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// withoutIPv6 keeps the kernel from giving an interface an IPv6 address of its
// own choice: there is no router that speaks it, and the search for neighbours
// and routers goes on for seconds, also in a guest of which a snapshot was taken meanwhile.
func withoutIPv6(fd int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return err
	}
	netlink, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(netlink)
	// if_addr.h, if_link.h, rtnetlink.h: the interface, and in it
	// IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE: none } }.
	request := struct {
		unix.NlMsghdr
		unix.IfInfomsg
		spec, family, mode unix.RtAttr
		value              [4]byte
	}{
		IfInfomsg: unix.IfInfomsg{Index: int32(r.Uint32())},
		spec:      unix.RtAttr{Len: 16, Type: unix.IFLA_AF_SPEC},
		family:    unix.RtAttr{Len: 12, Type: unix.AF_INET6},
		mode:      unix.RtAttr{Len: 5, Type: unix.IFLA_INET6_ADDR_GEN_MODE},
		value:     [4]byte{addrGenModeNone},
	}
	request.NlMsghdr = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(request)), Type: unix.RTM_SETLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if err := unix.Sendto(netlink, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(netlink, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return unix.EPROTO
	}
	if errno := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

func configureInterface(fd int, name string, n *protocol.Interface) error {
	prefix, err := netip.ParsePrefix(n.Address)
	if err != nil || !prefix.Addr().Is4() {
		return fmt.Errorf("address %q is not an IPv4 prefix", n.Address)
	}
	if n.MTU > 0 {
		if err := setInterface(fd, name, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(n.MTU)); return nil }); err != nil {
			return fmt.Errorf("setting the MTU of %s: %w", name, err)
		}
	}
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-prefix.Bits()))
	address := prefix.Addr().As4()
	if err := setInterface(fd, name, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address[:]) }); err != nil {
		return fmt.Errorf("setting the address of %s: %w", name, err)
	}
	if err := setInterface(fd, name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }); err != nil {
		return fmt.Errorf("setting the netmask of %s: %w", name, err)
	}
	if err := linkUp(fd, name); err != nil {
		return fmt.Errorf("bringing up %s: %w", name, err)
	}
	if n.Gateway == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("gateway %q is not an IPv4 address", n.Gateway)
	}
	if !prefix.Masked().Contains(gateway) {
		// Clouds give an address without neighbours (/32): how the gateway is
		// reached has to be said.
		if err := addRoute(fd, gateway.As4(), [4]byte{255, 255, 255, 255}, [4]byte{}, name); err != nil {
			return fmt.Errorf("adding the route to the gateway: %w", err)
		}
	}
	if err := addRoute(fd, [4]byte{}, [4]byte{}, gateway.As4(), name); err != nil {
		return fmt.Errorf("adding the default route: %w", err)
	}
	return nil
}

func setInterface(fd int, name string, request uint, fill func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := fill(r); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, request, r)
}

// hardwareRequest is struct ifreq with ifr_hwaddr, a sockaddr of the device's
// type.
type hardwareRequest struct {
	name [unix.IFNAMSIZ]byte
	addr unix.RawSockaddr
	_    [8]byte
}

// setMAC sets the address that a restored guest's device does not have yet.
func setMAC(fd int, name, address string) error {
	if address == "" {
		return nil
	}
	mac, err := net.ParseMAC(address)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%q is not a MAC address", address)
	}
	var r hardwareRequest
	copy(r.name[:unix.IFNAMSIZ-1], name)
	r.addr.Family = unix.ARPHRD_ETHER
	for i, b := range mac {
		r.addr.Data[i] = int8(b)
	}
	return ioctl(uintptr(fd), unix.SIOCSIFHWADDR, unsafe.Pointer(&r))
}

func linkUp(fd int, name string) error {
	return setInterface(fd, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP)
		return nil
	})
}

// rtEntry is struct rtentry of linux/route.h.
type rtEntry struct {
	_                     uintptr
	dst, gateway, genmask unix.RawSockaddrInet4
	flags                 uint16
	_                     int16
	_, _                  uintptr
	metric                int16
	device                *byte
	_                     [24]byte // the rest is zero
}

// addRoute adds a route to a network by an interface; a gateway of zero is none.
func addRoute(fd int, network, mask, gateway [4]byte, name string) error {
	device, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	route := rtEntry{
		dst:     unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: network},
		gateway: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gateway},
		genmask: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: mask},
		flags:   unix.RTF_UP,
		device:  device,
	}
	if gateway != [4]byte{} {
		route.flags |= unix.RTF_GATEWAY
	}
	if mask == [4]byte{255, 255, 255, 255} {
		route.flags |= unix.RTF_HOST
	}
	if err := ioctl(uintptr(fd), unix.SIOCADDRT, unsafe.Pointer(&route)); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}
