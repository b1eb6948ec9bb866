package app

import (
	"net"
	"os"
)

// sameUser takes connections of this process's user, root's and the caller's only: the token may
// be seen by other users of the host, as an argument of the browser's. Where the
// system does not tell whose a connection is, the token alone decides.
func sameUser(l net.Listener, caller int) net.Listener {
	return &userListener{l, []int{0, os.Geteuid(), caller}}
}

type userListener struct {
	net.Listener
	users []int
}

// Accept is part of [net.Listener].
func (l *userListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || allowed(c, l.users) {
			return c, err
		}
		c.Close()
	}
}
