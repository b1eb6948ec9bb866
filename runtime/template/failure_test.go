package template

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A template that cannot be made is known as such until there is one, a while has
// gone by, or it is cleaned away.
func TestFailures(t *testing.T) {
	s := NewStore(t.TempDir())
	key, other := strings.Repeat("a", 32), strings.Repeat("b", 32)
	if f, ok := s.Failed(key); ok {
		t.Errorf("before anything was tried: %v", f)
	}
	fill := func(err error) func(*Files) error { return func(*Files) error { return err } }
	if err := s.Make(t.Context(), key, fill(errors.New("no room"))); err == nil {
		t.Error("Make() of what cannot be made = nil")
	}
	if f, ok := s.Failed(key); !ok || f.Reason != "no room" || len(s.Failures()) != 1 {
		t.Errorf("Failed() = %v, %v; all: %v", f, ok, s.Failures())
	}
	if _, ok := s.Failed(other); ok {
		t.Error("another template has failed, too")
	}
	old := `{"reason":"no room","at":"` + time.Now().Add(-retry-time.Second).Format(time.RFC3339) + `"}`
	for _, content := range []string{old, "", "{", `{"at":"2999-01-01T00:00:00Z"}`, strings.Repeat("[", 1<<16)} {
		if err := os.WriteFile(s.failurePath(key), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, ok := s.Failed(key); ok {
			t.Errorf("of %.60q: %v", content, f)
		}
	}
	if err := s.Fail(key, errors.New(strings.Repeat("x", 1<<20))); err != nil {
		t.Fatal(err)
	}
	if f, ok := s.Failed(key); !ok || len(f.Reason) > maxReason {
		t.Errorf("a long reason: %d bytes, %v", len(f.Reason), ok)
	}
	if err := s.Make(t.Context(), key, fill(nil)); err != nil {
		t.Fatal(err)
	}
	if f, ok := s.Failed(key); ok {
		t.Errorf("once there is one: %v", f)
	}
	if err := s.Fail(other, errors.New("broken")); err != nil {
		t.Fatal(err)
	}
	if err := s.Clean(false); err != nil || len(s.Failures()) != 0 {
		t.Errorf("after Clean(): %v, %v", s.Failures(), err)
	}
	if _, err := s.Open(key); err != nil {
		t.Errorf("Clean() took a template away: %v", err)
	}
}

// A FIFO in the place of what is remembered is neither waited for nor written to.
func TestFailureThatIsAFIFO(t *testing.T) {
	s := NewStore(t.TempDir())
	key := strings.Repeat("a", 32)
	if err := syscall.Mkfifo(s.failurePath(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, ok := s.Failed(key); ok || len(s.Failures()) > 0 {
		t.Errorf("Failed() = %v", f)
	}
	if err := s.Fail(key, errors.New("no room")); err != nil {
		t.Error(err)
	}
	if f, ok := s.Failed(key); !ok || f.Reason != "no room" {
		t.Errorf("Failed() = %v, %v", f, ok)
	}
}
