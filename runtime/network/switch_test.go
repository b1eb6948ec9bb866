package network

import (
	"bytes"
	"net"
	"testing"
	"time"
)

func TestSwitch(t *testing.T) {
	s := NewSwitch()
	defer s.Close()
	var macs []net.HardwareAddr
	var links []net.Conn
	for i := range 3 {
		mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}
		f, err := s.Connect(mac)
		if err != nil {
			t.Fatal(err)
		}
		link, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { link.Close() })
		macs, links = append(macs, mac), append(links, link)
	}
	everyone := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := func(to, from net.HardwareAddr, payload string) []byte {
		return append(append(append(append([]byte{}, to...), from...), 8, 0), payload...)
	}
	for _, tt := range []struct {
		name  string
		from  int
		frame []byte
		heard []int
	}{
		{"to one", 0, frame(macs[1], macs[0], "x"), []int{1}},
		{"to all", 1, frame(everyone, macs[1], "x"), []int{0, 2}},
		{"to nobody", 0, frame(net.HardwareAddr{2, 9, 9, 9, 9, 9}, macs[0], "x"), nil},
		{"to itself", 0, frame(macs[0], macs[0], "x"), nil},
		{"in another's name", 2, frame(macs[1], macs[0], "x"), nil},
		{"too short", 0, macs[1], nil},
		{"long", 0, frame(macs[2], macs[0], string(make([]byte, MTU))), []int{2}},
		{"too long", 0, frame(macs[2], macs[0], string(make([]byte, MTU+1))), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := links[tt.from].Write(tt.frame); err != nil {
				t.Fatal(err)
			}
			// What comes after it, to everybody, says that it would have come.
			mark := frame(everyone, macs[tt.from], "mark")
			if _, err := links[tt.from].Write(mark); err != nil {
				t.Fatal(err)
			}
			for i, w := range links {
				if i == tt.from {
					continue
				}
				heard := false
				for b := make([]byte, maxFrame+1); ; {
					_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
					n, err := w.Read(b)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Equal(b[:n], mark) {
						break
					}
					heard = heard || bytes.Equal(b[:n], tt.frame)
				}
				want := false
				for _, h := range tt.heard {
					want = want || h == i
				}
				if heard != want {
					t.Errorf("port %d heard it: %v, want %v", i, heard, want)
				}
			}
		})
	}
}
