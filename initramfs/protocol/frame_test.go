package protocol

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	sent := Request{Version: Version, Op: OpExec, Exec: &Exec{Args: []string{"/bin/echo", "a b"}, Env: []string{"A=ü"}}}
	if err := w.Message(FrameRequest, sent); err != nil {
		t.Fatal(err)
	}
	if err := w.Data(FrameStdin, append(make([]byte, HeaderSize), "\x00\xff"...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Credit(77); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&b)
	var got Request
	if err := r.Expect(FrameRequest, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("request differs (-sent +got):\n%s", diff)
	}
	if ft, p, err := r.Next(); ft != FrameStdin || string(p) != "\x00\xff" || err != nil {
		t.Errorf("Next() = %d, %q, %v, want the stdin frame", ft, p, err)
	}
	ft, p, err := r.Next()
	if n, cerr := DecodeCredit(p); ft != FrameStdinCredit || n != 77 || err != nil || cerr != nil {
		t.Errorf("Next() = %d, %d, %v, want credit 77", ft, n, err)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("Next() at the end = %v, want io.EOF", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	tests := []struct {
		name, sent string
		want       error
	}{
		{"unknown type", "\x30\x00\x00\x00\x00", ErrMalformed},
		{"data longer than MaxData", "\x02\x00\x01\x00\x01", ErrMalformed},
		{"message of 4 GiB", "\x01\xff\xff\xff\xff", ErrMalformed},
		{"payload where none belongs", "\x03\x00\x00\x00\x01x", ErrMalformed},
		{"cut in the header", "\x02\x00", io.ErrUnexpectedEOF},
		{"cut in the payload", "\x02\x00\x00\x00\x05ab", io.ErrUnexpectedEOF},
		{"cut after the header", "\x02\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		{"nothing", "", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := NewReader(strings.NewReader(tt.sent)).Next()
			if !errors.Is(err, tt.want) {
				t.Errorf("Next() = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestExpectReturnsThePeersError(t *testing.T) {
	var b bytes.Buffer
	_ = NewWriter(&b).Message(FrameError, &Error{Code: CodeNotFound, Message: "no such program"})
	err := NewReader(&b).Expect(FrameReply, nil)
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeNotFound {
		t.Errorf("Expect() = %v, want the peer's not_found", err)
	}
}

// Whoever sends an error does not choose how long a line the other side prints.
func TestErrorTextsAreShort(t *testing.T) {
	var b bytes.Buffer
	_ = NewWriter(&b).Message(FrameError, &Error{Code: CodeFailed, Message: strings.Repeat("ü", MaxMessage/4)})
	err := NewReader(&b).Expect(FrameReply, nil)
	if n := len(err.Error()); n > maxErrorText+len("…") || !utf8.ValidString(err.Error()) {
		t.Errorf("an error of %d bytes", n)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x02ab\x03\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x02{}"))
	f.Add([]byte("\x44\x00\x00\x00\x04\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for {
			ft, p, err := r.Next()
			if err != nil {
				return
			}
			if len(p) > ft.limit() {
				t.Fatalf("frame of type %d has %d bytes", ft, len(p))
			}
			switch ft {
			case FrameRequest:
				_ = Decode(p, new(Request))
			case FrameStdinCredit:
				if n, err := DecodeCredit(p); err == nil && (n < 0 || n > StdinWindow) {
					t.Fatalf("credit %d", n)
				}
			case FrameError:
				_ = DecodeError(p)
			}
		}
	})
}
