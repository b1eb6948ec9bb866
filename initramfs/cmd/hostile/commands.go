//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// commands are attacks by the answer to an exec, and by what one can do to the
// machine.
var commands = map[string]func(g *guest, s *stream, args []string){
	"silence":        func(*guest, *stream, []string) { hang() },
	"end":            func(*guest, *stream, []string) {},
	"half-a-frame":   func(_ *guest, s *stream, _ []string) { _ = s.send(protocol.FrameStdout, 100, []byte("half")); hang() },
	"four-gigabytes": func(_ *guest, s *stream, _ []string) { _ = s.send(protocol.FrameExit, 0xffffffff, []byte("x")); hang() },
	"exit-256":       func(_ *guest, s *stream, _ []string) { _ = s.frame(protocol.FrameExit, []byte{0x80, 0x02, 0}) },
	"exit-and-more":  exitAndMore,
	"refusal":        func(_ *guest, s *stream, _ []string) { refuse(s) },
	"credit":         func(_ *guest, s *stream, _ []string) { repeat(s, protocol.FrameStdinCredit, []byte{0, 4, 0, 0}) },
	"empty-output":   func(_ *guest, s *stream, _ []string) { repeat(s, protocol.FrameStdout, nil) },
	"a-tree": func(_ *guest, s *stream, _ []string) {
		_ = s.frame(protocol.FrameEntry, entry('f', "x", "", 0).payload)
		hang()
	},
	"a-request":        func(_ *guest, s *stream, _ []string) { _ = s.Message(protocol.FrameRequest, s.req); hang() },
	"reboot":           func(*guest, *stream, []string) { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
	"panic":            func(*guest, *stream, []string) { _ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) },
	"console":          func(g *guest, _ *stream, _ []string) { _ = boots["console"](g) },
	"fill-disks":       fillDisks,
	"fill-memory":      func(*guest, *stream, []string) { fillMemory() },
	"mux":              breakMux,
	"frame":            func(_ *guest, s *stream, args []string) { oneFrame(s, args) },
	"close-the-port":   func(g *guest, _ *stream, _ []string) { g.port.Close(); hang() },
	"stop-reading":     stopReading,
	"flood-both-ports": floodBoth,
}

// exitAndMore goes on after the last frame, on the same stream.
func exitAndMore(_ *guest, s *stream, _ []string) {
	_ = s.Message(protocol.FrameExit, protocol.Exit{Code: 7})
	_ = s.Message(protocol.FrameExit, protocol.Exit{Code: 0})
	repeat(s, protocol.FrameStdout, []byte("after the end"))
}

func refuse(s *stream) {
	_ = s.Message(protocol.FrameError, protocol.Error{Code: protocol.ErrorCode(nasty), Message: strings.Repeat(nasty, 20000)})
}

func repeat(s *stream, t protocol.FrameType, payload []byte) {
	for s.frame(t, payload) == nil {
	}
}

// violations break the rules of the mux on the port itself; all that there are:
// TestHostilePeer in package mux.
var violations = map[string]func(id uint32) []byte{
	"a-stream": func(id uint32) []byte { return muxFrame(id+1, 1|2, 1, "x") },
	"credit":   func(id uint32) []byte { return muxFrame(id, 16, 1<<24-1, "") },
	"window": func(id uint32) []byte {
		return bytes.Repeat(muxFrame(id, 2, 30000, strings.Repeat("\x00", 30000)), 20)
	},
}

// breakMux is given the name of a violation.
func breakMux(g *guest, s *stream, args []string) {
	// The host numbers streams from 1 on, and no command comes before the
	// configuration: the last one that it opened is this one, or near.
	for id := uint32(1); id < 8; id++ {
		if _, err := g.port.Write(violations[args[0]](id)); err != nil {
			return
		}
	}
	hang()
}

// oneFrame sends a frame of some type, with nothing, a little or much in it.
func oneFrame(s *stream, args []string) {
	payload := map[string][]byte{"none": nil, "little": []byte(nasty), "much": bytes.Repeat([]byte("["), 64<<10)}[args[1]]
	t, err := strconv.Atoi(args[0])
	if err == nil {
		_ = s.frame(protocol.FrameType(t), payload)
	}
}

// stopReading takes nothing more from the port, so that who writes to it waits.
func stopReading(g *guest, _ *stream, _ []string) {
	g.port.deaf.Store(true)
	hang()
}

func floodBoth(g *guest, _ *stream, _ []string) {
	go func() { _ = boots["console"](g) }()
	_ = g.flood(func(i uint32) []byte { return muxFrame(1+i%4, 16, 0, "") })
}

func fillDisks(*guest, *stream, []string) {
	zeros := bytes.Repeat([]byte("filled"), 200000)
	for _, disk := range []string{"/dev/vda", "/dev/vdb", "/dev/vdc"} {
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		for range 100 {
			if _, err := f.Write(zeros); err != nil {
				break
			}
		}
		_ = f.Sync()
		f.Close()
	}
}

func fillMemory() {
	var all [][]byte
	for {
		all = append(all, bytes.Repeat([]byte("x"), 16<<20))
		runtime.KeepAlive(all)
	}
}

// muxFrame is a frame of the mux, with what it claims of itself.
func muxFrame(id uint32, flags byte, length int, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, id)
	b = binary.BigEndian.AppendUint32(b, uint32(flags)<<24|uint32(length))
	return append(b, payload...)
}
