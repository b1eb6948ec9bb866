package network

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"testing"
)

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x04test\x00\x00\x01\x00\x01"))
	n := &Network{policy: Policy{}, ctx: context.Background()}
	f.Fuzz(func(t *testing.T, question []byte) {
		if reply := n.answer(question, 512); len(reply) > 512 {
			t.Errorf("a reply of %d bytes", len(reply))
		}
	})
}

func FuzzServerName(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, hello []byte) {
		read, _, err := readServerName(context.Background(), bufio.NewReader(bytes.NewReader(hello)))
		if err == nil && !bytes.HasPrefix(hello, read) {
			t.Errorf("%x was read of %x", read, hello)
		}
	})
}

// Whatever a guest puts on the wire, the network lives.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x02lumin\x02\x00\x00\x00\x00\x01\x08\x00\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x01\x00\x00\x0a\x00\x02\x0f\x0a\x00\x02\x02\x08\x00\xf7\xff\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\x0a\x00\x02\x0f\x00\x00\x00\x00\x00\x00\x0a\x00\x02\x02"))
	n, err := New(Policy{}, net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	conn, err := net.FileConn(n.Device())
	if err != nil {
		f.Fatal(err)
	}
	go func() { // what it answers
		b := make([]byte, maxFrame)
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > maxFrame {
			return
		}
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
	})
}
