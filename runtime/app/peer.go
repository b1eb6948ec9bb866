package app

import "net"

// sameUser takes connections of this process's user, and root's, only: the token may
// be seen by other users of the host, as an argument of the browser's. Where the
// system does not tell whose a connection is, the token alone decides.
func sameUser(l net.Listener) net.Listener { return &userListener{l} }

type userListener struct{ net.Listener }

// Accept is part of [net.Listener].
func (l *userListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || allowed(c) {
			return c, err
		}
		c.Close()
	}
}
