//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// manners are how it answers whatever is no exec.
var manners = map[string]func(*stream){
	"silent":  func(*stream) { hang() },
	"gone":    func(*stream) {},
	"refuse":  refuse,
	"half":    func(s *stream) { _ = s.send(protocol.FrameReply, 1000, []byte("{")); hang() },
	"promise": func(s *stream) { _ = s.send(protocol.FrameReply, 0xffffffff, []byte("{")); hang() },
	"deep":    func(s *stream) { _ = s.frame(protocol.FrameReply, bytes.Repeat([]byte("["), 4<<20)) },
	"lists":   lists,
	"output":  func(s *stream) { repeat(s, protocol.FrameStdout, bytes.Repeat([]byte(nasty), 1000)) },
	// Trees of files.
	"name": func(s *stream) { tree(s, entry('f', ".bashrc", "", 0), chunk("evil"), chunk("")) },
	"above": func(s *stream) {
		tree(s, entry('d', "x", "", 0), entry('f', "../evil", "", 0), chunk("evil"), chunk(""))
	},
	"absolute": func(s *stream) { tree(s, entry('f', "/etc/evil", "", 0), chunk("evil"), chunk("")) },
	"strange": func(s *stream) {
		tree(s, entry('d', "x", "", 0), entry('f', "a\n\x1b[2J\u202eb", "", 0), chunk("fine"), chunk(""))
	},
	"zero": func(s *stream) {
		tree(s, entry('d', "x", "", 0), entry('f', "a\x00b", "", 0), chunk("evil"), chunk(""))
	},
	"through": func(s *stream) {
		tree(s, entry('d', "x", "", 0), entry('l', "a", "..", 0), entry('f', "a/evil", "", 0), chunk("evil"), chunk(""))
	},
	"setuid": func(s *stream) { tree(s, entry('f', "x", "", 0o6755), chunk("#!/bin/sh"), chunk("")) },
	"device": func(s *stream) { tree(s, entry('b', "x", "", 0o666)) },
	"petabyte": func(s *stream) {
		tree(s, entry('f', "x", "", 0), frame{protocol.FrameHole, []byte{0, 4, 0, 0, 0, 0, 0, 0}}, chunk(""))
	},
	"negative": func(s *stream) {
		tree(s, entry('f', "x", "", 0), frame{protocol.FrameHole, bytes.Repeat([]byte{0xff}, 8)}, chunk(""))
	},
	"links":   func(s *stream) { tree(s, entry('d', "x", "", 0), entry('h', "a", "../../../../etc/passwd", 0)) },
	"endless": endlessFile,
	"many":    manyFiles,
	"nothing": func(s *stream) {
		_ = s.frame(protocol.FrameEntry, entry('f', "x", "", 0).payload)
		repeat(s, protocol.FrameHole, make([]byte, 8))
	},
	"figures": figures,
	"early": func(s *stream) {
		_ = s.Message(protocol.FrameReply, protocol.Copied{Files: 1 << 62, Bytes: -1})
		hang()
	},
	// Of a shutdown: it is done, and is not.
	"stay": func(s *stream) { _ = s.Message(protocol.FrameReply, nil); hang() },
}

type frame struct {
	t       protocol.FrameType
	payload []byte
}

func chunk(s string) frame { return frame{protocol.FrameChunk, []byte(s)} }

// entry is one of package transfer's, with what an honest sender would not say.
func entry(kind byte, name, target string, mode uint32) frame {
	b := binary.BigEndian.AppendUint32([]byte{kind}, mode)
	b = append(b, make([]byte, 4+4+8+4)...)
	for _, s := range []string{name, target} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return frame{protocol.FrameEntry, b}
}

// tree sends a tree of files, whatever was asked for. Whoever wants to give some is
// taken all that he sends.
func tree(s *stream, frames ...frame) {
	for _, f := range frames {
		if s.frame(f.t, f.payload) != nil {
			return
		}
	}
	_ = s.Message(protocol.FrameEnd, protocol.Copied{})
}

func endlessFile(s *stream) {
	f := entry('f', "x", "", 0)
	_ = s.frame(f.t, f.payload)
	repeat(s, protocol.FrameChunk, make([]byte, 64<<10))
}

func manyFiles(s *stream) {
	f := entry('d', "x", "", 0)
	_ = s.frame(f.t, f.payload)
	for i := 0; ; i++ {
		f = entry('f', fmt.Sprintf("%010d", i), "", 0)
		if s.frame(f.t, f.payload) != nil || s.frame(protocol.FrameChunk, nil) != nil {
			return
		}
	}
}

// figures lies about what was left out.
func figures(s *stream) {
	names := make([]string, 5000)
	for i := range names {
		names[i] = strings.Repeat(nasty, 5)
	}
	for _, f := range []frame{entry('f', "x", "", 0), chunk("fine"), chunk("")} {
		_ = s.frame(f.t, f.payload)
	}
	_ = s.Message(protocol.FrameEnd, protocol.Copied{Files: -1, Bytes: 1 << 62, Skipped: 1 << 62, SkippedNames: names})
}

// lists answers by lists of things that cannot be.
func lists(s *stream) {
	type any = map[string]interface{}
	var all []any
	for i := range 2000 {
		all = append(all, any{"id": fmt.Sprintf("--signal=KILL%s%d", nasty, i), "pid": -1 << 40, "args": []string{nasty, "", nasty},
			"age": -1 << 62, "exit": any{"code": 256 + i, "signal": -1}})
	}
	b, err := json.Marshal(any{"processes": all, "id": nasty})
	if err == nil {
		_ = s.frame(protocol.FrameReply, b)
	}
}
