//go:build linux

// Hostile is an init and agent that lies: what root in a guest can make of the
// real one. The tests boot it (TestHostileAgent in cmd/lumina), and nothing else has
// it.
//
// It behaves until it is told not to: by lumina.hostile=ATTACK on the kernel's
// command line, which is an attack of boots; by a command "be ATTACK", which is how
// it answers from then on; and by any other command, which is an attack of its own.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/uevent"
)

// nasty does something to a terminal, a line of a log, a shell or a path.
const nasty = "\x1b]0;owned\x07\x1b[2J\r\nlumina: all is well\n\u202e../../\x00\xff$(id)"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "hostile: %v\n", err)
	}
	powerOff()
}

func run() error {
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m[1], err)
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	attack := ""
	for word := range strings.FieldsSeq(string(line)) {
		if s, ok := strings.CutPrefix(word, "lumina.hostile="); ok {
			attack = s
		}
	}
	var path string
	if err := uevent.Wait(0, func() (bool, error) {
		ports, err := filepath.Glob("/dev/vport*")
		if len(ports) > 0 {
			path = ports[0]
		}
		return path != "", err
	}); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	g := &guest{port: &port{ReadWriteCloser: file}}
	g.manner.Store("")
	if boot, ok := boots[attack]; ok {
		return boot(g)
	}
	return g.accept(g.serve)
}

// accept greets the host as an agent does, and gives each stream to serve.
func (g *guest) accept(serve func(net.Conn)) error {
	if err := protocol.ReceiveHello(g.port); err != nil {
		return err
	}
	if err := protocol.SendHello(g.port); err != nil {
		return err
	}
	streams := mux.Server(g.port)
	for {
		conn, err := streams.Accept()
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

// guest is what all streams share.
type guest struct {
	port   *port
	manner atomic.Value // string: how it answers
}

// port is the serial port, on which frames of any kind can be put between those of
// the mux.
type port struct {
	io.ReadWriteCloser
	mu   sync.Mutex
	deaf atomic.Bool // it takes nothing more
}

func (w *port) Read(p []byte) (int, error) {
	if w.deaf.Load() {
		hang()
	}
	return w.ReadWriteCloser.Read(p)
}

func (w *port) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ReadWriteCloser.Write(p)
}

// stream is one operation.
type stream struct {
	net.Conn
	*protocol.Writer
	in  *protocol.Reader
	req protocol.Request
}

func (g *guest) serve(conn net.Conn) {
	defer conn.Close()
	s := &stream{Conn: conn, Writer: protocol.NewWriter(conn), in: protocol.NewReader(conn)}
	if s.in.Expect(protocol.FrameRequest, &s.req) != nil {
		return
	}
	manner := g.manner.Load().(string)
	if s.req.Op == protocol.OpExec && !s.req.Exec.Detach {
		words := strings.Fields(strings.Join(s.req.Exec.Args, " "))
		if len(words) == 2 && words[0] == "be" {
			g.manner.Store(words[1])
			_ = s.Last(protocol.FrameExit, protocol.Exit{})
			return
		}
		if do, ok := commands[words[0]]; ok {
			do(g, s, words[1:])
			return
		}
		_ = s.Last(protocol.FrameExit, protocol.Exit{})
		return
	}
	if lie, ok := manners[manner]; ok {
		lie(s)
		return
	}
	s.behave()
}

// behave is what an honest agent does, as far as it costs nothing.
func (s *stream) behave() {
	switch s.req.Op {
	case protocol.OpConfigure:
		if s.Message(protocol.FrameReply, nil) != nil {
			return
		}
		if _, err := s.in.Clock(); err != nil {
			return
		}
		_ = s.Last(protocol.FrameReply, protocol.Configured{})
	case protocol.OpExec:
		_ = s.Last(protocol.FrameReply, protocol.Started{ID: "1"})
	case protocol.OpProcesses:
		_ = s.Last(protocol.FrameReply, protocol.Processes{})
	case protocol.OpEcho:
		_ = s.Message(protocol.FrameReply, nil)
		_, _ = io.Copy(s.Conn, s.in.Rest())
	case protocol.OpShutdown:
		_ = s.Last(protocol.FrameReply, nil)
		powerOff()
	default:
		_ = s.Last(protocol.FrameReply, nil)
	}
}

// send sends a frame with a header that says what it likes.
func (s *stream) send(t protocol.FrameType, length uint32, payload []byte) error {
	frame := append([]byte{byte(t), byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}, payload...)
	_, err := s.Write(frame)
	return err
}

// frame sends one that is in order, but for what is in it.
func (s *stream) frame(t protocol.FrameType, payload []byte) error {
	return s.send(t, uint32(len(payload)), payload)
}

// hang waits until the host gives up, or the VM ends.
func hang() { time.Sleep(time.Hour) }

func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	hang()
}
