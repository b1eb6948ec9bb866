//go:build linux

package main

import (
	"bytes"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// boots are ways not to come up.
var boots = map[string]func(*guest) error{
	"silence":        func(*guest) error { hang(); return nil },
	"hello-of-noise": func(g *guest) error { return g.say(bytes.Repeat([]byte{0xff, 0x1b, '[', 'J'}, 1<<20)) },
	"streams-of-its-own": func(g *guest) error {
		if err := protocol.SendHello(g.port); err != nil {
			return err
		}
		return g.flood(func(i uint32) []byte { return muxFrame(i+1, 1|2, 1, "x") })
	},
	"console": func(*guest) error {
		for range 3000 {
			if _, err := os.Stderr.WriteString(nasty); err != nil {
				break
			}
		}
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	},
	// The host waits for a reply: of four megabytes, which come one by one.
	"refusal-drip": func(g *guest) error {
		return g.configured(func(s *stream) {
			_ = s.send(protocol.FrameReply, protocol.MaxMessage, nil)
			for {
				if _, err := s.Write([]byte{0}); err != nil {
					return
				}
			}
		})
	},
	"refusal": func(g *guest) error {
		return g.configured(func(s *stream) {
			_ = s.Last(protocol.FrameError, protocol.Error{Code: protocol.ErrorCode(nasty), Message: strings.Repeat(nasty, 20000)})
		})
	},
	"marks": func(g *guest) error {
		return g.configured(func(s *stream) {
			if s.Message(protocol.FrameReply, nil) != nil {
				return
			}
			marks := make([]protocol.Mark, 60000)
			for i := range marks {
				marks[i] = protocol.Mark{Name: nasty, At: 1 << 61}
			}
			_ = s.Message(protocol.FrameReply, protocol.Configured{Marks: marks})
		})
	},
}

// configured says hello and answers the host's first request by answer, and all
// others by silence.
func (g *guest) configured(answer func(*stream)) error {
	return g.accept(func(conn net.Conn) {
		s := &stream{Conn: conn, Writer: protocol.NewWriter(conn), in: protocol.NewReader(conn)}
		if s.in.Expect(protocol.FrameRequest, &s.req) == nil && s.req.Op == protocol.OpConfigure {
			answer(s)
		}
		hang()
	})
}

// say says something in place of a hello, and waits.
func (g *guest) say(b []byte) error {
	if _, err := g.port.Write(b); err != nil {
		return err
	}
	hang()
	return nil
}

// flood sends frames without an end.
func (g *guest) flood(frame func(i uint32) []byte) error {
	var b []byte
	for i := uint32(0); ; i++ {
		if b = append(b, frame(i)...); len(b) < 16<<10 {
			continue
		}
		if _, err := g.port.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
}
