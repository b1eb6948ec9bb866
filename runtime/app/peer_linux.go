package app

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// allowed says whether a connection is one of these users'.
func allowed(c net.Conn, users []int) bool {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return false
	}
	readable := false
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		uid, found := owner(f, remote.AddrPort(), local.AddrPort())
		f.Close()
		readable = true
		if found {
			return slices.Contains(users, uid)
		}
	}
	return !readable
}

const established = "01"

// owner finds whose the socket is that a connection comes from, in the kernel's list
// of sockets (Documentation/networking/proc_net_tcp.rst). Both whole addresses tell it:
// another user can have the same pair of ports, by another address of the loopback, and
// be found first, or have somebody else's be found for his.
func owner(list io.Reader, from, to netip.AddrPort) (uid int, found bool) {
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || !slices.Contains(listed(from), f[1]) || !slices.Contains(listed(to), f[2]) {
			continue
		}
		if f[3] != established {
			continue // one that was closed is said to be root's
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}

// listed is how an address is written in the lists: by words of four bytes, each in this
// machine's order. One of IPv4 is in that of IPv6, too, if its socket is.
func listed(a netip.AddrPort) []string {
	write := func(address []byte) string {
		var b strings.Builder
		for word := range slices.Chunk(address, 4) {
			fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(word))
		}
		return fmt.Sprintf("%s:%04X", b.String(), a.Port())
	}
	ip := a.Addr().Unmap()
	mapped := ip.As16()
	forms := []string{write(mapped[:])}
	if ip.Is4() {
		short := ip.As4()
		forms = append(forms, write(short[:]))
	}
	return forms
}
