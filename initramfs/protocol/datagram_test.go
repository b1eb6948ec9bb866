package protocol

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestDatagrams(t *testing.T) {
	var stream bytes.Buffer
	sent := [][]byte{[]byte("a"), {}, bytes.Repeat([]byte("x"), MaxDatagram)}
	for _, b := range sent {
		if err := WriteDatagram(&stream, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteDatagram(&stream, make([]byte, MaxDatagram+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a datagram that is too long: %v", err)
	}
	got := make([]byte, MaxDatagram)
	for _, want := range sent {
		n, err := ReadDatagram(&stream, got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("received %d bytes, %v; want %d", n, err, len(want))
		}
	}
	if _, err := ReadDatagram(&stream, got); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func FuzzReadDatagram(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, buf := bytes.NewReader(b), make([]byte, MaxDatagram)
		var again bytes.Buffer
		for {
			n, err := ReadDatagram(r, buf)
			if err != nil {
				break
			}
			_ = WriteDatagram(&again, buf[:n])
		}
		if !bytes.HasPrefix(b, again.Bytes()) {
			t.Errorf("%q was read as %q", b, again.Bytes())
		}
	})
}
