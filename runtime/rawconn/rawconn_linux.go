// Package rawconn is sockets that are read and written without Go's scheduler being
// told: a call that cannot block needs none to stand in for it.
//
// That matters where a process mostly waits and then has one small thing to carry,
// as the supervisor of a VM has. An announced system call of a process that was idle
// wakes the scheduler's monitor, a thread that then runs every 20 µs until all is
// idle again; and while one takes longer than that, because the kernel let the reader
// run first, the CPU is given to goroutines that may spin for what the writer
// holds. On two CPUs, both cost a fifth of the connections a second that a
// guest can make.
package rawconn

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Conn is a connected socket. As any [net.Conn], it may be used by several
// goroutines.
type Conn struct {
	descriptor
	local, remote net.Addr
	raw           syscall.RawConn
	datagrams     bool // which may be empty
	in, out       transfer
}

// descriptor owns a socket: a connection or a file.
type descriptor interface {
	syscall.Conn
	Close() error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// New makes a Conn of a socket, which is not to be used any more.
func New(s Socket) (*Conn, error) {
	c, err := newConn(s, s.LocalAddr(), s.RemoteAddr())
	if err != nil {
		return nil, err
	}
	var kind int
	if e := c.raw.Control(func(fd uintptr) { kind, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE) }); e != nil || err != nil {
		return nil, errors.Join(e, os.NewSyscallError("getsockopt", err))
	}
	c.datagrams = kind == syscall.SOCK_DGRAM
	return c, nil
}

func newConn(d descriptor, local, remote net.Addr) (*Conn, error) {
	raw, err := d.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{descriptor: d, local: local, remote: remote, raw: raw}
	// Made once: each would be allocated for each call.
	c.in.try = func(fd uintptr) bool { return c.in.call(syscall.SYS_RECVFROM, fd) }
	c.out.try = func(fd uintptr) bool { return c.out.call(syscall.SYS_SENDTO, fd) }
	return c, nil
}

// announced says which calls in a row without a wait are made through Go's scheduler:
// every 16th. That keeps the scheduler's monitor awake during a flood. The monitor lets
// other goroutines run, and polls for their connections.
const announced = 16

// Announce makes every call go through the scheduler, as for an ordinary socket. It
// is called before the Conn is used.
func (c *Conn) Announce() { c.in.all, c.out.all = true, true }

// Announced says whether every call goes through the scheduler.
func (c *Conn) Announced() bool { return c.in.all }

// transfer is a direction of a connection, and the call that is under way there.
type transfer struct {
	mu     sync.Mutex
	b      []byte
	n      int
	errno  syscall.Errno
	inARow uint // calls since the last wait
	all    bool // calls are announced
	try    func(fd uintptr) bool
}

// call tries to receive or send, and says whether that is done: it was possible.
func (t *transfer) call(trap, fd uintptr) bool {
	const flags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL
	t.inARow++
	for {
		var n uintptr
		if t.all || t.inARow%announced == 0 {
			n, _, t.errno = syscall.Syscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)), flags, 0, 0)
		} else {
			n, _, t.errno = syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)), flags, 0, 0)
		}
		switch t.errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			t.inARow = 0
			return false
		}
		t.n = int(n)
		return true
	}
}

func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 && !c.datagrams {
		return 0, nil
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.b = b
	err := c.raw.Read(c.in.try)
	c.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case c.in.errno != 0:
		return 0, asError("recvfrom", c.in.errno)
	case c.in.n == 0 && !c.datagrams:
		return 0, io.EOF
	}
	return c.in.n, nil
}

func (c *Conn) Write(b []byte) (sent int, err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	defer func() { c.out.b = nil }()
	for first := true; sent < len(b) || first && c.datagrams; first = false {
		c.out.b = b[sent:]
		if err := c.raw.Write(c.out.try); err != nil {
			return sent, err
		}
		if c.out.errno != 0 {
			return sent, asError("sendto", c.out.errno)
		}
		sent += c.out.n
	}
	return sent, nil
}

// Offer sends a datagram if there is room for it now.
func (c *Conn) Offer(b []byte) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.b = b
	err := c.raw.Control(func(fd uintptr) { c.out.call(syscall.SYS_SENDTO, fd) })
	c.out.b = nil
	if err != nil {
		return err
	}
	return asError("sendto", c.out.errno)
}

// CloseWrite ends what this side sends.
func (c *Conn) CloseWrite() error {
	var errno syscall.Errno
	if err := c.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall(syscall.SYS_SHUTDOWN, fd, syscall.SHUT_WR, 0)
	}); err != nil {
		return err
	}
	return asError("shutdown", errno)
}

// Reset closes the connection, and the peer sees that it was cut off.
func (c *Conn) Reset() error {
	linger := syscall.Linger{Onoff: 1}
	_ = c.raw.Control(func(fd uintptr) {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_LINGER, uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	})
	return c.Close()
}

func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// DialTCP connects to an IPv4 address. There are no keep-alives, and no delays.
func DialTCP(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	address := &syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: bigEndian(to.Port()), Addr: to.Addr().As4()}
	// Before the poller hears of it, which takes a socket that does not connect for
	// a broken one. How far it comes is asked for then.
	_ = connect(fd, address)
	f := os.NewFile(fd, "tcp")
	local, err := connected(ctx, f, address)
	if err != nil {
		f.Close()
		return nil, err
	}
	c, err := newConn(f, local, net.TCPAddrFromAddrPort(to))
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// connect connects a socket, or says how far that is.
func connect(fd uintptr, to *syscall.RawSockaddrInet4) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
	return errno
}

// connected waits until a socket is connected, and returns its own address.
func connected(ctx context.Context, f *os.File, to *syscall.RawSockaddrInet4) (net.Addr, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var errno syscall.Errno
	err = raw.Write(func(fd uintptr) bool {
		errno = connect(fd, to)
		return errno != syscall.EINPROGRESS && errno != syscall.EALREADY && errno != syscall.EINTR
	})
	switch {
	case !stop():
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case errno != 0 && errno != syscall.EISCONN:
		return nil, os.NewSyscallError("connect", errno)
	}
	var own syscall.RawSockaddrInet4
	if err := raw.Control(func(fd uintptr) {
		size, on := uint32(unsafe.Sizeof(own)), int32(1)
		_, _, errno = syscall.RawSyscall(syscall.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size)))
		_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, uintptr(unsafe.Pointer(&on)), unsafe.Sizeof(on), 0)
	}); err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(own.Addr), bigEndian(own.Port))), asError("getsockname", errno)
}

func asError(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(call, errno)
}

// bigEndian makes a port of the machine's order one of the network's, and back.
func bigEndian(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
