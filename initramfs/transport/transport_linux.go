// Package transport is how the host reaches the agent: a [net.Listener] in the
// guest, over vsock where the host has it, else over a virtio-serial port that
// is multiplexed into streams.
package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/uevent"
)

// ServeVsock connects to the host's vsock port, which carries all streams of the
// host that started the guest, and listens on the agent's for one that restored
// it. serve is given the streams of each.
func ServeVsock(serve func(net.Listener) error) error {
	l, err := vsock.Listen(protocol.VsockPort, nil)
	if err != nil {
		return fmt.Errorf("listening on vsock port %d: %w", protocol.VsockPort, err)
	}
	defer l.Close()
	// A host that did not start the guest does not listen.
	if c, err := vsock.Dial(vsock.Host, protocol.VsockReadyPort, nil); err == nil {
		go serveHost(c, serve)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accepting a host: %w", err)
		}
		// A process of the guest is no host, whatever user it runs as.
		if a, ok := c.RemoteAddr().(*vsock.Addr); !ok || a.ContextID != vsock.Host {
			c.Close()
			continue
		}
		go serveHost(c, serve)
	}
}

func serveHost(c net.Conn, serve func(net.Listener) error) {
	defer c.Close()
	if s, err := accept(c); err == nil {
		_ = serve(s) // until the host goes
	}
}

// Port is the agent's virtio-serial port.
type Port struct{ file *os.File }

// OpenPort waits for the agent's port to appear and opens it.
func OpenPort() (*Port, error) {
	// The kernel makes the port after a conversation with the device, which
	// may still be under way.
	var path string
	if err := uevent.Wait(0, func() (bool, error) {
		var err error
		path, err = findPort()
		return path != "", err
	}); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the agent's port: %w", err)
	}
	return &Port{file: f}, nil
}

func findPort() (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", fmt.Errorf("looking for the agent's port: %w", err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(b)) == protocol.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(n)), nil
		}
	}
	return "", nil
}

// Accept waits for a host to greet and returns the session of its streams.
func (p *Port) Accept() (*mux.Session, error) { return accept(p.file) }

func accept(c io.ReadWriteCloser) (*mux.Session, error) {
	if err := protocol.ReceiveHello(c); err != nil {
		if !errors.Is(err, io.EOF) { // of a host that is not there
			_ = protocol.SendHello(c) // so that the host sees our version
		}
		return nil, err
	}
	if err := protocol.SendHello(c); err != nil {
		return nil, fmt.Errorf("greeting the host: %w", err)
	}
	return mux.Server(c), nil
}

// AcceptLater is Accept for a host that may come at any time, and go: without
// one the port reads as ended.
func (p *Port) AcceptLater() (*mux.Session, error) {
	changes, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("waiting for a host: %w", err)
	}
	defer unix.Close(changes)
	raw, err := p.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("waiting for a host: %w", err)
	}
	// The edge: level-triggered, the end would be reported all the time.
	var added error
	if err := raw.Control(func(fd uintptr) {
		added = unix.EpollCtl(changes, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET&0xffffffff})
	}); err != nil || added != nil {
		return nil, fmt.Errorf("waiting for a host: %w", errors.Join(err, added))
	}
	for {
		if _, err := unix.EpollWait(changes, make([]unix.EpollEvent, 1), -1); err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("waiting for a host: %w", err)
		}
		s, err := p.Accept()
		if !errors.Is(err, io.EOF) {
			return s, err
		}
	}
}

// Close lets the port be opened again.
func (p *Port) Close() error { return p.file.Close() }
