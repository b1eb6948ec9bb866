package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/relay"
	"github.com/abdul-abdi/lumina/runtime/network/http1"
)

// named is a connection to a host that the policy allows by name. Nothing is passed
// on until the guest has named that host: in the TLS handshake, or in a request of
// plain HTTP, and then in each further one. Nor is what the host says: who speaks
// first speaks neither.
type named struct {
	network  *Network
	to       netip.AddrPort
	guest    *guestConn
	upstream *hostConn
	// What each side says, and what of it is being passed on.
	guestBytes, hostBytes *bufio.Reader
	sending, returning    io.Reader

	rules   rules         // of the protocol; set before decided is closed
	decided chan struct{} // closed when the guest has named an allowed host
	ended   chan struct{} // closed when the host says nothing more
	end     func()        // closes it
	refused sync.Once
}

// rules are those of a protocol: what is passed on next from the guest to the host,
// and back.
type rules interface {
	next() (io.Reader, error)
	nextBack() (io.Reader, error)
}

// joinNamed joins a guest with a host that the policy allows by name.
func (n *Network) joinNamed(guest *guestConn, upstream *hostConn, to netip.AddrPort) {
	c := &named{network: n, to: to, guest: guest, upstream: upstream}
	c.guestBytes, c.hostBytes = bufio.NewReaderSize(guest, 16<<10), bufio.NewReaderSize(upstream, 16<<10)
	c.decided, c.ended = make(chan struct{}), make(chan struct{})
	c.end = sync.OnceFunc(func() { close(c.ended) })
	relay.Join(guestSide{guest, c}, hostSide{upstream, c})
}

// guestSide and hostSide are the connections, read through the rules.
type (
	guestSide struct {
		*guestConn
		c *named
	}
	hostSide struct {
		*hostConn
		c *named
	}
)

func (s guestSide) Read(p []byte) (int, error) {
	n, err := passOn(p, &s.c.sending, s.c.next)
	s.c.refuse(err)
	return n, err
}

func (s hostSide) Read(p []byte) (int, error) {
	n, err := passOn(p, &s.c.returning, s.c.nextBack)
	s.c.refuse(err)
	if err != nil {
		s.c.end()
	}
	return n, err
}

// passOn reads what is being passed on, and what follows it. What is cut off by an
// end arrives cut off by an end.
func passOn(p []byte, from *io.Reader, next func() (io.Reader, error)) (int, error) {
	for {
		if *from == nil {
			r, err := next()
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			if err != nil {
				return 0, err
			}
			*from = r
		}
		n, err := (*from).Read(p)
		if err == io.EOF {
			*from, err = nil, nil
			if n == 0 {
				continue
			}
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return n, err
	}
}

// endless is a reader whose end is that of its connection.
type endless struct{ r io.Reader }

func (e endless) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // of which passOn makes the end again
	}
	return n, err
}

// next is what the guest says next. By its first byte TLS is told from HTTP.
func (c *named) next() (io.Reader, error) {
	if c.rules != nil {
		return c.rules.next()
	}
	first, err := c.guestBytes.Peek(1)
	if err != nil {
		return nil, err
	}
	var begun rules = &httpRules{named: c, asked: make(chan *http1.Request, 1), answered: make(chan bool, 1)}
	if first[0] == recordHandshake {
		begun = &tlsRules{named: c, verdict: make(chan struct{})}
	}
	r, err := begun.next()
	if err == nil {
		c.rules = begun
		close(c.decided)
	}
	return r, err
}

// nextBack is what the host says next: nothing, before the guest has named it.
func (c *named) nextBack() (io.Reader, error) {
	_, err := c.hostBytes.Peek(1)
	select {
	case <-c.decided:
		return c.rules.nextBack()
	default:
	}
	if err == nil {
		err = &wrongName{"", fmt.Sprintf("the server spoke before the guest: what is allowed by name is TLS and HTTP; to allow the port of another protocol, name it: HOST:%d", c.to.Port())}
	}
	return nil, err
}

// refuse has it on record why a connection is ended, if it is for what was said.
func (c *named) refuse(err error) {
	var refused http1.Refused
	var wrong *wrongName
	switch {
	case errors.As(err, &refused):
		wrong = &wrongName{"", string(refused)}
	case !errors.As(err, &wrong):
		return
	}
	c.refused.Do(func() { c.network.deny("tcp", c.to, wrong.name, wrong.reason) })
}

// forbid answers a request, where none is under way, and lets the guest read it.
func (c *named) forbid(reason string) {
	body := "lumina: " + reason + "\n"
	_ = c.guest.SetDeadline(time.Now().Add(2 * time.Second))
	_, err := fmt.Fprintf(c.guest, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err == nil && c.guest.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.guestBytes, 1<<20))
	}
}
