package pace

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

var errSlow = errors.New("slow")

// server is a reader that brings so many bytes after each pause, until it is ended.
type server struct {
	pause time.Duration
	bytes int
	ended chan struct{}
	once  sync.Once
}

// end ends it; it may be called more than once, as the cancel of a context.
func (s *server) end(error) { s.once.Do(func() { close(s.ended) }) }

func (s *server) Read(b []byte) (int, error) {
	select {
	case <-s.ended:
		return 0, errSlow
	case <-time.After(s.pause):
		return min(s.bytes, len(b)), nil
	}
}

func TestReader(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pause time.Duration
		bytes int
		slow  bool
	}{
		{"nothing", time.Hour, 0, true},
		{"drops", 5 * time.Millisecond, 1, true},
		{"steadily", time.Millisecond, Least / 8, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{pause: tt.pause, bytes: tt.bytes, ended: make(chan struct{})}
			r := NewReader(s, time.Second, s.end)
			_, err := io.CopyN(io.Discard, r, 20*Least)
			if slow := errors.Is(err, errSlow); slow != tt.slow || !slow && err != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Who reads late is not who sends late.
func TestReaderThatIsLate(t *testing.T) {
	s := &server{bytes: 1, ended: make(chan struct{})}
	r := NewReader(s, 200*time.Millisecond, s.end)
	for range 5 {
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Millisecond)
	}
}
