package app

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// welcome is what a server of RFB says, as QEMU does.
func welcome(security ...byte) []byte {
	return slices.Concat([]byte("RFB 003.008\n"), []byte{byte(len(security))}, security, be32(0), make([]byte, 20), be32(4), []byte("QEMU"))
}

func audio(op byte, b ...byte) []byte {
	m := []byte{rfbQEMU, qemuAudio, 0, op}
	if op == audioData {
		m = append(append(m, be32(int32(len(b)))...), b...)
	}
	return m
}

// acknowledged is the picture that is none.
var acknowledged = slices.Concat([]byte{rfbUpdate, 0, 0, 1}, make([]byte, 8), be32(encodingAudio))

// script is a server that says what it says, whatever it is told.
type script struct {
	io.Reader
	told bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.told.Write(p) }

func TestSoundIsHeard(t *testing.T) {
	s := &script{Reader: bytes.NewReader(slices.Concat(welcome(2, rfbNoSecurity), acknowledged,
		audio(1), audio(audioData, 1, 2, 3, 4), []byte{rfbBell}, []byte{rfbCutText, 0, 0, 0}, be32(2), []byte("hi"), audio(audioData, 5, 6, 7, 8), audio(0)))}
	var heard []byte
	err := hear(s, func(b []byte) error {
		heard = append(heard, b...)
		return nil
	})
	if !errors.Is(err, io.EOF) || !bytes.Equal(heard, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("heard %v, %v", heard, err)
	}
	if want := "RFB 003.008\n\x01\x01" + string(rfbListen); s.told.String() != want {
		t.Errorf("told it %q, want %q", s.told.String(), want)
	}
}

func TestSoundOfABadServer(t *testing.T) {
	for name, tt := range map[string]struct {
		says []byte
		want string
	}{
		"another protocol": {[]byte("HTTP/1.1 200 OK\r\n"), "it speaks"},
		"a password":       {welcome(2), "password"},
		"a refusal":        {slices.Concat([]byte("RFB 003.008\n\x01\x01"), be32(1)), "refuses"},
		"a long name":      {slices.Concat([]byte("RFB 003.008\n\x01\x01"), be32(0), make([]byte, 20), be32(-1)), "in one message"},
		"a picture":        {slices.Concat(welcome(1), []byte{rfbUpdate, 0, 0, 1}, make([]byte, 12)), "not asked for"},
		"another message":  {slices.Concat(welcome(1), []byte{9}), "message 9"},
		"another of QEMU":  {slices.Concat(welcome(1), []byte{rfbQEMU, 7, 0, 0}), "message 7"},
		"much at once":     {slices.Concat(welcome(1), []byte{rfbQEMU, qemuAudio, 0, audioData}, be32(maxSound+1)), "at once"},
	} {
		t.Run(name, func(t *testing.T) {
			err := hear(&script{Reader: bytes.NewReader(tt.says)}, func([]byte) error { return nil })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	t.Run("a page that has gone", func(t *testing.T) {
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		go func() { _, _ = there.Write(slices.Concat(welcome(1), audio(audioData, 1, 2))) }()
		gone := errors.New("gone")
		if err := hear(here, func([]byte) error { return gone }); !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

func FuzzSound(f *testing.F) {
	f.Add(slices.Concat(welcome(1), acknowledged, audio(1), audio(audioData, 1, 2, 3, 4), audio(0)))
	f.Add(slices.Concat(welcome(1), []byte{rfbCutText, 0, 0, 0}, be32(3), []byte("abc")))
	f.Fuzz(func(t *testing.T, says []byte) {
		n := 0
		_ = hear(&script{Reader: bytes.NewReader(says)}, func(b []byte) error {
			n += len(b)
			return nil
		})
		if n > len(says) {
			t.Errorf("%d bytes of sound in %d", n, len(says))
		}
	})
}
