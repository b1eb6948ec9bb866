//go:build linux

package boot

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// configureNetwork brings up the loopback and, when the guest has one, its
// interface, with the addresses that the host chose: no DHCP round trip.
func configureNetwork(n *protocol.Network) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := linkUp(fd, "lo"); err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	if n == nil {
		return nil
	}
	return configureInterface(fd, "eth0", n)
}

func configureInterface(fd int, name string, n *protocol.Network) error {
	prefix, err := netip.ParsePrefix(n.Address)
	if err != nil || !prefix.Addr().Is4() {
		return fmt.Errorf("address %q is not an IPv4 prefix", n.Address)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("gateway %q is not an IPv4 address", n.Gateway)
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
	return defaultRoute(fd, gateway.As4())
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
	_                     [64]byte // the rest is zero
}

func defaultRoute(fd int, gateway [4]byte) error {
	route := rtEntry{
		dst:     unix.RawSockaddrInet4{Family: unix.AF_INET},
		gateway: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gateway},
		genmask: unix.RawSockaddrInet4{Family: unix.AF_INET},
		flags:   unix.RTF_UP | unix.RTF_GATEWAY,
	}
	if err := ioctl(uintptr(fd), unix.SIOCADDRT, unsafe.Pointer(&route)); err != nil {
		return fmt.Errorf("adding the default route: %w", err)
	}
	return nil
}
