//go:build linux

package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x04test\x00\x00\x01\x00\x01"))
	n := &Network{policy: NAT(false), ctx: context.Background(), resolver: testZone}
	f.Fuzz(func(t *testing.T, question []byte) {
		if reply := n.answer(question, false); len(reply) > 512 && (len(question) < 13 || question[11] == 0) {
			t.Errorf("a reply of %d bytes", len(reply))
		}
	})
}

// Replies are hostile, too: what is left of one is well formed.
func FuzzScreen(f *testing.F) {
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	for _, body := range []dnsmessage.ResourceBody{&dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}, &dnsmessage.MXResource{MX: dnsmessage.MustNewName("b.a.test.")},
		&dnsmessage.SOAResource{NS: dnsmessage.MustNewName("b.a.test."), MBox: dnsmessage.MustNewName("a.test.")}} {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}, Body: body})
	}
	seed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	n := &Network{policy: NAT(false), ctx: context.Background()}
	f.Fuzz(func(t *testing.T, reply []byte) {
		kept := n.screen(append([]byte(nil), reply...), "a.test")
		if kept == nil {
			return
		}
		records, ok := parseRecords(kept)
		if !ok || len(kept) > max(len(reply), maxMessage) {
			t.Fatalf("%x is left of %x", kept, reply)
		}
		for _, r := range records {
			for _, a := range r.addresses(kept) {
				if n.refusesAnswer(a) != "" {
					t.Errorf("%s is left of %x", a, reply)
				}
			}
		}
	})
}

// A hello that is passed on is one record, and names the same when it is read again.
func FuzzServerName(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"))
	hello := captureHello(f, "listed.test")
	f.Add(hello)
	f.Add(inRecords(hello, 40))
	f.Fuzz(func(t *testing.T, hello []byte) {
		read, name, err := readServerName(context.Background(), bufio.NewReader(bytes.NewReader(hello)))
		if err != nil {
			return
		}
		if size := int(binary.BigEndian.Uint16(read[3:])); recordHeader+size != len(read) {
			t.Errorf("%x was read of %x", read, hello)
		}
		again, nameAgain, err := readServerName(context.Background(), bufio.NewReader(bytes.NewReader(read)))
		if !bytes.Equal(again, read) || nameAgain != name || err != nil {
			t.Errorf("%x names %q, and passed on as %x %q, %v", hello, name, read, nameAgain, err)
		}
	})
}

// Whatever a guest puts on the link, the network lives.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x02lumin\x02\x00\x00\x00\x00\x01\x08\x00\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x01\x00\x00\x0a\x00\x02\x0f\x0a\x00\x02\x02\x08\x00\xf7\xff\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\x0a\x00\x02\x0f\x00\x00\x00\x00\x00\x00\x0a\x00\x02\x02"))
	n, err := New(Policy{}, net.HardwareAddr{2, 0, 0, 0, 0, 1}, Options{})
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
