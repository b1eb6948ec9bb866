package desktop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func phases(b *Boot) (names []string) {
	for _, p := range b.Phases {
		names = append(names, p.Name)
	}
	return names
}

func TestBoot(t *testing.T) {
	s := NewStore(t.TempDir())
	m := create(t, s, "a")
	if b, err := s.LastBoot(m); b != nil || err != nil {
		t.Errorf("of one that was never booted: %v, %v", b, err)
	}
	lock, err := s.hold(m)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecord(s.Path(m))
	r.reached(PhaseMachine)
	// A mark may come in pieces, and again.
	for _, out := range []string{"\x1b[2JBdsDxe: star", "ting Boot0001\r\n", "[    0.000000] Linux ver", "sion 6.12\n", "Linux version 6.12\n", "debian login: "} {
		if n, err := fmt.Fprint(r, out); n != len(out) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	b, err := s.LastBoot(m)
	want := []string{PhaseMachine, PhaseFirmware, PhaseLoader, PhaseKernel, PhaseLogin}
	if err != nil || !slices.Equal(phases(b), want) || b.Ended != nil || b.Error != "" {
		t.Errorf("%+v, %v; want the phases %q", b, err, want)
	}
	lock.Close()
	if b, err := s.LastBoot(m); err != nil || b.Error != errKilled {
		t.Errorf("of one whose supervisor was killed: %+v, %v", b, err)
	}
	r.end(errors.New("QEMU crashed"))
	if b, err := s.LastBoot(m); err != nil || b.Error != "QEMU crashed" || b.Ended == nil {
		t.Errorf("of one that crashed: %+v, %v", b, err)
	}
	if got, err := os.ReadFile(s.SerialFile(m)); err != nil || !strings.HasSuffix(string(got), "debian login: ") {
		t.Errorf("the serial port's output: %q, %v", got, err)
	}
	// The next boot begins anew.
	newRecord(s.Path(m)).end(nil)
	if b, err := s.LastBoot(m); err != nil || b.Error != "" || len(b.Phases) != 0 {
		t.Errorf("of the next one: %+v, %v", b, err)
	}
}

// A guest that writes without an end takes a bounded file of the host, and the end of
// what it wrote is in it.
func TestSerialFileIsBounded(t *testing.T) {
	s := NewStore(t.TempDir())
	m := create(t, s, "a")
	r := newRecord(s.Path(m))
	for i := range 50000 {
		fmt.Fprintf(r, "%07d %s\n", i, strings.Repeat("x", 91))
	}
	r.Write(bytes.Repeat([]byte("y"), 3*maxSerial))
	got, err := os.ReadFile(s.SerialFile(m))
	if err != nil || len(got) > maxSerial || !bytes.HasSuffix(got, bytes.Repeat([]byte("y"), keptSerial)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
