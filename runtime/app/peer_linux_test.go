package app

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Another user's connection is none of this user's, whatever sockets of the same ports
// there are on other addresses of the loopback.
func TestOtherUsersConnections(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a socket to another user")
	}
	const stranger = 65534
	users := []int{0}
	listen := func(address string) *net.TCPListener {
		t.Helper()
		l, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	// connect is a connection between two addresses, of a user, as the server has it.
	connect := func(from string, l *net.TCPListener, uid int) net.Conn {
		t.Helper()
		local, err := net.ResolveTCPAddr("tcp4", from)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.DialTCP("tcp4", local, l.Addr().(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var chown error
		if err := raw.Control(func(fd uintptr) { chown = syscall.Fchown(int(fd), uid, -1) }); err != nil || chown != nil {
			t.Fatal(err, chown)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
		return accepted
	}
	app, decoy := listen("127.0.0.1:0"), listen("127.0.0.1:0")
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	// The victim's own ends have the ports of what follows, in the other order and in the same.
	connect(fmt.Sprintf("127.0.0.5:%d", port(app)), decoy, stranger)
	if c := connect(fmt.Sprintf("127.0.0.5:%d", port(decoy)), app, stranger); allowed(c, users) {
		t.Error("a stranger's connection with the ports of a connection of this user's is taken")
	}
	mine := connect("127.0.0.1:0", app, os.Geteuid())
	if !allowed(mine, users) {
		t.Error("this user's connection is not taken")
	}
	same := mine.RemoteAddr().(*net.TCPAddr).Port
	for n := 2; n < 20; n++ {
		if c := connect(fmt.Sprintf("127.0.0.%d:%d", n, same), app, stranger); allowed(c, users) {
			t.Errorf("a stranger's connection from 127.0.0.%d, with the port of this user's, is taken", n)
		}
	}
	if !allowed(mine, users) {
		t.Error("this user's connection is not taken beside those")
	}
}

func TestOwner(t *testing.T) {
	const list = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0500007F:1F90 0100007F:2328 01 00000000:00000000 00:00000000 00000000  1
   1: 0100007F:1F90 0500007F:2328 01 00000000:00000000 00:00000000 00000000  2
   2: 0100007F:1F90 0100007F:2328 06 00000000:00000000 00:00000000 00000000  3
   3: 0000000000000000FFFF00000100007F:1F91 0000000000000000FFFF00000100007F:2328 01 0:0 00:0 0  5
   4: 0100007F:1F90 0100007F:2328 01 00000000:00000000 00:00000000 00000000  4
`
	l := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9000}
	for port, want := range map[int]int{8080: 4, 8081: 5, 8082: 0} {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		if uid, found := owner(strings.NewReader(list), from.AddrPort(), l.AddrPort()); uid != want || found != (want != 0) {
			t.Errorf("owner(%v) = %d, %v, want %d", from, uid, found, want)
		}
	}
}
