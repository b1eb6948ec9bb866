package protocol

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var requests = []Request{
	{Version: Version, Op: OpProcesses},
	{Version: Version, Op: OpExec, Exec: &Exec{Args: []string{"/bin/echo", "a b", ""}, Env: []string{"A=ü", "PATH=/bin"}, Dir: "/tmp", User: "1000:1000", Stdin: true}},
	{Version: Version, Op: OpExec, Exec: &Exec{Args: []string{"exit 3"}, Shell: true, Detach: true, Terminal: &TerminalSize{Rows: 24, Columns: 65535}}},
	{Version: Version, Op: OpConfigure, Configure: &Configure{Template: true, Hostname: "a", MachineID: "b", Seed: []byte{0, 255}}},
	{Version: Version, Op: OpConfigure, Configure: &Configure{Hostname: "a", MachineID: "b", Seed: []byte("c"),
		Network: &Interface{MAC: "02:00:00:00:00:01", Address: "10.0.0.2/24", Gateway: "10.0.0.1", DNS: []string{"10.0.0.1", "10.0.0.3"}, Search: []string{"corp.test", "b.test"}, MTU: 1500},
		Mounts:  []Mount{{Disk: "volume0", Path: "/data"}, {Share: "share1", Path: "/src", ReadOnly: true}, {Share: "share2", Path: "/lib", Served: true}},
		Hosts:   []Host{{Name: "db", Address: "10.0.0.3"}}}},
	{Version: Version, Op: OpRoom, Room: &Room{Left: new(int64), Least: 4096}},
	{Version: Version, Op: OpShare, Share: &Share{Tag: "share2"}},
	{Version: Version, Op: OpKill, Kill: &Kill{ID: "7", Signal: 15}},
	{Version: Version, Op: OpCopyIn, CopyIn: &CopyIn{Path: "/a", User: "u"}},
}

func TestRequestsRoundTrip(t *testing.T) {
	for _, sent := range requests {
		b, err := sent.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Request
		if err := Decode(b, &got); err != nil {
			t.Errorf("%s: %v", sent.Op, err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("%s differs (-sent +got):\n%s", sent.Op, diff)
		}
		// However it is cut, and with more behind it, it is refused.
		for n := range b {
			if err := Decode(b[:n], &got); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %d bytes of %d: %v", sent.Op, n, len(b), err)
			}
		}
		if err := Decode(append(b, 0), &got); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s and a byte: %v", sent.Op, err)
		}
	}
}

func TestRepliesRoundTrip(t *testing.T) {
	for _, tt := range []struct{ sent, got any }{
		{&Exit{Code: 137, Signal: 9}, new(Exit)},
		{&Configured{Marks: []Mark{{"entering the root", 77 * time.Millisecond}, {"", 0}}}, new(Configured)},
		{&Started{ID: "12"}, new(Started)},
		{&Processes{Processes: []Process{{ID: "1", Exit: &Exit{Code: 1}}}}, new(Processes)},
	} {
		b, err := appendMessage(nil, tt.sent)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(b, tt.got); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.sent, tt.got); diff != "" {
			t.Errorf("%T differs (-sent +got):\n%s", tt.sent, diff)
		}
	}
}

// An exit is one that a process can have.
func TestExitBounds(t *testing.T) {
	for _, e := range []Exit{{Code: 256}, {Code: 1 << 20}, {Code: 1, Signal: 65}, {Signal: 1 << 30}} {
		b, err := appendMessage(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		var got Exit
		if err := Decode(b, &got); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v is read as %+v, %v", e, got, err)
		}
	}
}

// Of another version nothing is known but that it is one.
func TestAnotherVersion(t *testing.T) {
	var got Request
	if err := Decode([]byte{99, 1, 2, 3}, &got); err != nil || got.Version != 99 {
		t.Errorf("Decode() = %+v, %v", got, err)
	}
}

func FuzzMessages(f *testing.F) {
	for _, r := range requests {
		b, _ := r.AppendBinary(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{new(Request), new(Configure), new(Configured), new(Exec), new(Exit)} {
			if Decode(data, v) != nil {
				continue
			}
			if r, ok := v.(*Request); ok && r.Version != Version {
				continue
			}
			once, err := appendMessage(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			if err := Decode(once, v); err != nil {
				t.Fatalf("%T does not read what it wrote: %v", v, err)
			}
			if again, _ := appendMessage(nil, v); !bytes.Equal(once, again) {
				t.Fatalf("%T is written as %x, and then as %x", v, once, again)
			}
		}
	})
}

func BenchmarkExec(b *testing.B) {
	payload, _ := requests[1].AppendBinary(nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(payload, new(Request)); err != nil {
			b.Fatal(err)
		}
	}
}
