// Package transport is how the host reaches the agent: a [net.Listener] in the
// guest, over vsock where the host has it, else over a virtio-serial port that
// is multiplexed into streams.
package transport

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// ListenVsock listens on the agent's vsock port; a connection is a stream.
func ListenVsock() (net.Listener, error) {
	l, err := vsock.Listen(protocol.VsockPort, nil)
	if err != nil {
		return nil, fmt.Errorf("listening on vsock port %d: %w", protocol.VsockPort, err)
	}
	// A host that does not want to know does not listen.
	if c, err := vsock.Dial(vsock.Host, protocol.VsockReadyPort, nil); err == nil {
		c.Close()
	}
	return l, nil
}

// Port is the agent's virtio-serial port.
type Port struct{ file *os.File }

// OpenPort waits for the agent's port to appear and opens it.
func OpenPort() (*Port, error) {
	// The kernel makes the port after a conversation with the device, which
	// may still be under way; it tells of each new one.
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listening for device events: %w", err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, fmt.Errorf("listening for device events: %w", err)
	}
	event := make([]byte, 16<<10)
	for {
		path, err := findPort()
		if err != nil {
			return nil, err
		}
		if path != "" {
			f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
			if err != nil {
				return nil, fmt.Errorf("opening the agent's port: %w", err)
			}
			return &Port{file: f}, nil
		}
		if _, err := unix.Read(events, event); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			return nil, fmt.Errorf("reading device events: %w", err)
		}
	}
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
func (p *Port) Accept() (*mux.Session, error) {
	if err := protocol.ReceiveHello(p.file); err != nil {
		_ = protocol.SendHello(p.file) // so that the host sees our version
		return nil, err
	}
	if err := protocol.SendHello(p.file); err != nil {
		return nil, fmt.Errorf("greeting the host: %w", err)
	}
	return mux.Server(p.file), nil
}
