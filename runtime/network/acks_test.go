package network

import (
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// segment is a frame of the stack's to the guest; number tells it from others.
func segment(port uint16, number uint32, flags header.TCPFlags, options, payload int) []byte {
	const ip, tcp = header.EthernetMinimumSize, header.EthernetMinimumSize + header.IPv4MinimumSize
	b := make([]byte, tcp+header.TCPMinimumSize+options+payload)
	header.Ethernet(b).Encode(&header.EthernetFields{Type: header.IPv4ProtocolNumber})
	header.IPv4(b[ip:]).Encode(&header.IPv4Fields{TotalLength: uint16(len(b) - ip), Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{198, 51, 100, 10}), DstAddr: guestAddress})
	header.TCP(b[tcp:]).Encode(&header.TCPFields{SrcPort: 80, DstPort: port, AckNum: number, Flags: flags,
		DataOffset: uint8(header.TCPMinimumSize + options)})
	return b
}

// An acknowledgement that something else of its connection follows is not sent;
// each second one is, and one that nothing follows after a moment.
func TestAcks(t *testing.T) {
	const ack, timestamps, losses = header.TCPFlagAck, 12, 24
	udp := segment(1, 9, ack, 0, 0)
	udp[header.EthernetMinimumSize+9] = uint8(header.UDPProtocolNumber)
	for name, tt := range map[string]struct {
		frames [][]byte
		now    []int // the indices of those that go at once, in their order
		later  []int
	}{
		"alone":                  {[][]byte{segment(1, 1, ack, timestamps, 0)}, nil, []int{0}},
		"and then an answer":     {[][]byte{segment(1, 1, ack, timestamps, 0), segment(1, 1, ack|header.TCPFlagPsh, timestamps, 9)}, []int{1}, nil},
		"and then an end":        {[][]byte{segment(1, 1, ack, 0, 0), segment(1, 1, ack|header.TCPFlagFin, 0, 0)}, []int{1}, nil},
		"three":                  {[][]byte{segment(1, 1, ack, 0, 0), segment(1, 2, ack, 0, 0), segment(1, 3, ack, 0, 0)}, []int{1}, []int{2}},
		"of another connection":  {[][]byte{segment(1, 1, ack, 0, 0), segment(2, 1, ack, 0, 9)}, []int{1}, []int{0}},
		"of a loss":              {[][]byte{segment(1, 1, ack, losses, 0)}, []int{0}, nil},
		"an answer":              {[][]byte{segment(1, 1, ack, 0, 1)}, []int{0}, nil},
		"a beginning":            {[][]byte{segment(1, 1, ack|header.TCPFlagSyn, 0, 0)}, []int{0}, nil},
		"not of TCP, or cut off": {[][]byte{udp, udp[:20], nil}, []int{0, 1, 2}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan []byte, len(tt.frames))
			a := newAcks(time.Hour, func(frame []byte) error { sent <- slices.Clone(frame); return nil })
			for _, f := range tt.frames {
				if err := a.send(f); err != nil {
					t.Fatal(err)
				}
			}
			check := func(when string, want []int) {
				t.Helper()
				if len(sent) != len(want) {
					t.Fatalf("%s %d frames were sent, want %d", when, len(sent), len(want))
				}
				for _, i := range want {
					if got := <-sent; !slices.Equal(got, tt.frames[i]) {
						t.Errorf("%s %x was sent, want frame %d, %x", when, got, i, tt.frames[i])
					}
				}
			}
			check("at once", tt.now)
			a.expire()
			check("after one moment", nil)
			a.expire()
			check("after two", tt.later)
			if len(a.held) > 0 {
				t.Errorf("%d are held", len(a.held))
			}
		})
	}
}
