package client

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// frame is raw bytes of a frame.
func frame(t protocol.FrameType, payload string) string {
	b := binary.BigEndian.AppendUint32([]byte{byte(t)}, uint32(len(payload)))
	return string(b) + payload
}

// header claims a payload of n bytes that never comes.
func header(t protocol.FrameType, n uint32) string {
	return string(binary.BigEndian.AppendUint32([]byte{byte(t)}, n))
}

// calls are all that a host asks an agent for.
var calls = []struct {
	name string
	do   func(ctx context.Context, t *testing.T, conn net.Conn) error
}{
	{"exec", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Exec(ctx, conn, &protocol.Exec{Args: []string{"true"}}, Stdio{Stdin: strings.NewReader("x"), Stdout: io.Discard}, Control{})
		return err
	}},
	{"configure", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Configure(ctx, conn, &protocol.Configure{})
		return err
	}},
	{"detach", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Detach(ctx, conn, &protocol.Exec{Args: []string{"true"}})
		return err
	}},
	{"kill", func(ctx context.Context, _ *testing.T, conn net.Conn) error { return Kill(ctx, conn, "1", 15) }},
	{"shut down", func(ctx context.Context, _ *testing.T, conn net.Conn) error { return Shutdown(ctx, conn) }},
	{"next layer", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		return NextLayer(ctx, conn, &protocol.Layer{})
	}},
	{"dial", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Dial(ctx, conn, 80)
		return err
	}},
	{"datagrams", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Datagrams(ctx, conn, 53)
		return err
	}},
	{"snapshot", func(ctx context.Context, _ *testing.T, conn net.Conn) error { return PrepareSnapshot(ctx, conn) }},
	{"processes", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		_, err := Processes(ctx, conn)
		return err
	}},
	{"logs", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		return Logs(ctx, conn, "1", true, Stdio{})
	}},
	{"changes", func(ctx context.Context, _ *testing.T, conn net.Conn) error {
		return Changes(ctx, conn, io.Discard)
	}},
	{"copy out", func(ctx context.Context, t *testing.T, conn net.Conn) error {
		dir := t.TempDir()
		_, err := CopyOut(ctx, conn, "/x", filepath.Join(dir, "in", "x"), CopyOptions{})
		if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 1 {
			t.Errorf("written beside the destination: %v", found)
		}
		return err
	}},
}

// An agent that says whatever it likes gets an error, at once, and neither more
// memory nor a file of the host.
func TestHostileAgent(t *testing.T) {
	exit := frame(protocol.FrameExit, "\x00\x00")
	said := []struct{ name, bytes string }{
		{"nothing", ""},
		{"noise", "\xff\xfe\xfd\xfc\xfb\xfa"},
		{"half a header", "\x42\x00"},
		{"half a frame", header(protocol.FrameStdout, 100) + "short"},
		{"an unknown type", header(0, 4) + "abcd"},
		{"a type that is the host's", frame(protocol.FrameRequest, "{}")},
		{"output that claims four gigabytes", header(protocol.FrameStdout, 0xffffffff)},
		{"a reply that claims four gigabytes", header(protocol.FrameReply, 0xffffffff)},
		{"an exit that is cut", frame(protocol.FrameExit, "\x00")},
		{"an exit with a number beyond all", frame(protocol.FrameExit, strings.Repeat("\xff", 20))},
		{"a list that claims four million items", frame(protocol.FrameReply, "\xff\xff\xff\x01")},
		{"an error that is not JSON", frame(protocol.FrameError, "[1")},
		{"a credit of the wrong length", frame(protocol.FrameStdinCredit, "\x00\x01")},
		{"a credit for all there is", frame(protocol.FrameStdinCredit, "\xff\xff\xff\xff")},
		{"deep JSON", frame(protocol.FrameReply, strings.Repeat("[", 1<<20))},
		{"a tree in place of an answer", frame(protocol.FrameEntry, "f")},
		{"an entry above the root", entry("../../etc/passwd")},
		{"an absolute entry", entry("/etc/passwd")},
	}
	for _, call := range calls {
		for _, s := range said {
			t.Run(call.name+"/"+s.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				before := allocated()
				if err := call.do(ctx, t, talk(t, strings.NewReader(s.bytes))); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				if grown := allocated() - before; grown > 32<<20 {
					t.Errorf("%d bytes were allocated", grown)
				}
			})
		}
	}
	t.Run("output without end, and then an exit", func(t *testing.T) {
		// It is passed on as it comes: nothing of it is kept.
		one := frame(protocol.FrameStdout, strings.Repeat("x", 64<<10))
		flood := io.MultiReader(io.LimitReader(&repeat{b: []byte(one)}, int64(len(one))*2000), strings.NewReader(exit))
		before := allocated()
		if _, err := Exec(t.Context(), talk(t, flood), &protocol.Exec{Args: []string{"yes"}}, Stdio{Stdout: io.Discard}, Control{}); err != nil {
			t.Error(err)
		}
		if grown := allocated() - before; grown > 32<<20 {
			t.Errorf("%d bytes were allocated for 125 MiB of output", grown)
		}
	})
}

// Whatever an agent does, without an end or drop by drop, Ctrl-C ends each call at once,
// and nothing of it goes on.
func TestHostileAgentAndTheEnd(t *testing.T) {
	interrupted := errors.New("interrupted")
	chunk := frame(protocol.FrameChunk, strings.Repeat("x", 1000))
	for _, call := range calls {
		for name, says := range map[string]io.Reader{
			"silence":           &drips{},
			"drops":             &drips{of: &repeat{b: []byte(header(protocol.FrameReply, 1<<20))}},
			"output":            &repeat{b: []byte(frame(protocol.FrameStdout, strings.Repeat("x", 1000)))},
			"nothing, in parts": &repeat{b: []byte(frame(protocol.FrameStdout, ""))},
			"credit":            &repeat{b: []byte(frame(protocol.FrameStdinCredit, "\x00\x00\x00\x00"))},
			"a file":            io.MultiReader(strings.NewReader(entry("x")), &repeat{b: []byte(chunk)}),
			"a file, in drops":  io.MultiReader(strings.NewReader(entry("x")), &drips{of: &repeat{b: []byte(chunk)}}),
			"a reply, and then": io.MultiReader(strings.NewReader(frame(protocol.FrameReply, "")), &repeat{b: []byte("x")}),
		} {
			t.Run(call.name+"/"+name, func(t *testing.T) {
				before := runtime.NumGoroutine()
				ctx, cancel := context.WithCancelCause(t.Context())
				conn, stop := endless(says)
				timer := time.AfterFunc(30*time.Millisecond, func() { cancel(interrupted) })
				done := make(chan error, 1)
				go func() { done <- call.do(ctx, t, conn) }()
				select {
				case err := <-done:
					// Some have had what they asked for, or an error, before.
					if ctx.Err() != nil && err != nil && !errors.Is(err, interrupted) && !errors.Is(err, protocol.ErrMalformed) {
						t.Errorf("error %v", err)
					}
				case <-time.After(30 * time.Second):
					t.Error("it goes on")
				}
				timer.Stop()
				cancel(nil)
				conn.Close() // that of a dial is the caller's
				stop()
				polltest.Until(t, func() error {
					if runtime.NumGoroutine() <= before {
						return nil
					}
					buf := make([]byte, 64<<10)
					return fmt.Errorf("%d goroutines were there, and %d are:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				})
			})
		}
	}
}

// drips are bytes one by one, with a moment between them; of nothing: none.
type drips struct{ of io.Reader }

func (d *drips) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond) // the speed is what is tested
	if d.of == nil {
		return 0, nil
	}
	return d.of.Read(p[:1])
}

// endless is a connection whose other end reads everything, and says what has no end
// until it is stopped.
func endless(says io.Reader) (conn net.Conn, stop func()) {
	here, there := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, there) }()
	halt, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		b := make([]byte, 4<<10)
		for {
			n, err := says.Read(b)
			select {
			case <-halt:
				return
			default:
			}
			if err != nil {
				return
			}
			if n == 0 {
				continue
			}
			if _, err := there.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	return here, func() {
		close(halt)
		there.Close()
		<-over
	}
}

// entry is a regular file of a tree, with some name.
func entry(name string) string { return entryOf('f', name, "") }

// entryOf is an entry of some kind, that is the sender's to choose.
func entryOf(kind byte, name, target string) string {
	b := append([]byte{kind}, make([]byte, 4+4+4+8+4)...)
	if kind == 'd' {
		binary.BigEndian.PutUint32(b[1:], 0o755) // whoever runs the test is to look into it
	}
	for _, s := range []string{name, target} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return frame(protocol.FrameEntry, string(b))
}

// The guest chooses no name on the host: what it sends lands under the name that
// was asked for, or nowhere.
func TestTheNameIsTheHosts(t *testing.T) {
	evil := frame(protocol.FrameChunk, "evil") + frame(protocol.FrameChunk, "")
	end := frame(protocol.FrameEnd, "{}")
	file := func(name string) string { return entry(name) + evil }
	dir := func(name string) string { return entryOf('d', name, "") }
	link := func(name, target string) string { return entryOf('l', name, target) }
	said := []struct {
		name, bytes string
		want        string // what is in the directory, and below it
	}{
		{"a file of that name", file("x") + end, "x"},
		{"a directory of that name", dir("x") + file("a") + end, "x x/a"},
		{"a shell's start", file(".bashrc") + end, ""},
		{"a repository with hooks", dir(".git") + dir("hooks") + file("hooks/post-checkout") + end, ""},
		{"a name above", file("../x") + end, ""},
		{"the parent", dir("..") + file("a") + end, ""},
		{"the directory", dir(".") + file("a") + end, ""},
		{"no name", dir("") + file("a") + end, ""},
		{"an absolute name", file("/x") + end, ""},
		{"a name below", file("x/y") + end, ""},
		{"a zero byte", file("x\x00y") + end, ""},
		{"other letters", file("X") + end, ""},
		{"a link", link("x", "/etc/passwd") + end, ""},
		{"a second", file("x") + file("y") + end, ""},
		{"a second directory", dir("x") + dir("../y") + end, "x"},
		{"through a link", dir("x") + link("l", "..") + file("l/y") + end, "x x/l"},
		{"over a link", dir("x") + link("l", "../y") + file("l") + end, "x x/l"},
		{"twice", dir("x") + file("a") + file("a") + end, "x x/a"},
		{"out of order", dir("x") + file("b") + file("a") + end, "x x/b"},
		{"a hard link out", dir("x") + entryOf('h', "l", "../secret") + end, "x"},
		{"a setuid device", dir("x") + entryOf('b', "sda", "") + end, "x"},
	}
	for _, s := range said {
		// cp SID:/x DIR, and --download /x:DIR/
		for _, destination := range []string{"in", "in/"} {
			t.Run(s.name+" "+destination, func(t *testing.T) {
				base := t.TempDir()
				in := filepath.Join(base, "in")
				if err := os.Mkdir(in, 0o751); err != nil {
					t.Fatal(err)
				}
				_, err := CopyOut(t.Context(), talk(t, strings.NewReader(s.bytes)), "/root/x", base+"/"+destination, CopyOptions{})
				var found []string
				_ = filepath.WalkDir(base, func(path string, _ os.DirEntry, _ error) error {
					name, _ := filepath.Rel(base, path)
					found = append(found, name)
					return nil
				})
				want := []string{".", "in"}
				for _, name := range strings.Fields(s.want) {
					want = append(want, "in/"+name)
				}
				if !slices.Equal(found, want) {
					t.Errorf("there is %q, want %q", found, want)
				}
				if good := strings.HasPrefix(s.name, "a file of that") || strings.HasPrefix(s.name, "a directory of that"); good != (err == nil) {
					t.Errorf("error %v", err)
				}
				if info, err := os.Stat(in); err != nil || info.Mode().Perm() != 0o751 {
					t.Errorf("the directory has mode %v, %v", info.Mode(), err)
				}
			})
		}
	}
}

// The id of a process is printed, and given to other commands: the guest chooses it
// among what does nothing to a terminal and is not an option.
func TestTheGuestsIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"12": true, "a-b.c_d": true, strings.Repeat("1", 64): true,
		"": false, strings.Repeat("1", 65): false, "1\n2": false, "\x1b]0;title\a": false, "--signal=KILL": false, "../x": false, "1 2": false, "\u202e1": false, "\xff": false,
	} {
		reply, err := json.Marshal(protocol.Started{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Detach(t.Context(), talk(t, strings.NewReader(frame(protocol.FrameReply, string(reply)))), &protocol.Exec{Args: []string{"true"}})
		if ok != (err == nil) || ok && got != id || !ok && !errors.Is(err, protocol.ErrMalformed) || err != nil && strings.ContainsAny(err.Error(), "\n\x1b\u202e") {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}

// So are those of a list, and what else is said of its processes can be.
func TestTheGuestsProcesses(t *testing.T) {
	for said, ok := range map[string]bool{
		`[]`: true, `[{"id":"12","pid":7,"args":["\u001b[2J"],"age":1,"exit":{"code":255}}]`: true,
		`[{"id":"1"},{"id":"--signal=KILL"}]`: false, `[{"id":"1\n2"}]`: false, `[{"id":""}]`: false,
		`[{"id":"1","pid":-1}]`: false, `[{"id":"1","age":-1}]`: false,
		`[{"id":"1","exit":{"code":256}}]`: false, `[{"id":"1","exit":{"code":-1}}]`: false,
	} {
		list, err := Processes(t.Context(), talk(t, strings.NewReader(frame(protocol.FrameReply, `{"processes":`+said+`}`))))
		if ok != (err == nil) || !ok && (len(list) > 0 || !errors.Is(err, protocol.ErrMalformed)) {
			t.Errorf("%s: %+v, %v", said, list, err)
		}
	}
}

// An agent that says nothing more, or takes nothing more, does not hold its host.
func TestSilentAgent(t *testing.T) {
	source := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(source, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	o := CopyOptions{Silence: 50 * time.Millisecond}
	for name, do := range map[string]func(net.Conn) error{
		"copy out": func(conn net.Conn) error {
			_, err := CopyOut(t.Context(), conn, "/x", t.TempDir(), o)
			return err
		},
		"copy in": func(conn net.Conn) error {
			_, err := CopyIn(t.Context(), conn, source, &protocol.CopyIn{Path: "/x"}, o)
			return err
		},
	} {
		for _, says := range []string{"", entry("x"), entry("x") + frame(protocol.FrameChunk, "half")} {
			for _, reads := range []int64{0, 100, 1 << 19, 1 << 30} {
				here, there := net.Pipe()
				go func() { _, _ = there.Write([]byte(says)) }()
				go func() { _, _ = io.CopyN(io.Discard, there, reads) }()
				if err := do(here); err == nil || name == "copy out" && !errors.Is(err, ErrSilent) {
					t.Errorf("%s, which reads %d and says %q: %v", name, reads, says, err)
				}
				here.Close()
				there.Close()
			}
		}
	}
}

// A guest that gives up early ends the sending, whether what is sent is taken or not.
func TestGuestThatGivesUp(t *testing.T) {
	for _, takes := range []int64{0, 1 << 16, 1 << 62} {
		guestThatGivesUp(t, takes)
	}
}

// That all has come is not believed of one that counts otherwise.
func TestGuestThatCountsOtherwise(t *testing.T) {
	source := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(source, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, ok := range map[string]bool{`{"files":1,"bytes":4}`: true, `{}`: false, `{"files":1,"bytes":3}`: false, `{"files":-1,"bytes":4}`: false} {
		here, there := net.Pipe()
		go func() {
			in := protocol.NewReader(there)
			for {
				frame, _, err := in.Next()
				if err != nil || frame == protocol.FrameEnd {
					break
				}
			}
			_, _ = there.Write([]byte(frame(protocol.FrameReply, says)))
		}()
		if copied, err := CopyIn(t.Context(), here, source, &protocol.CopyIn{Path: "/x"}, CopyOptions{}); ok != (err == nil) || !ok && !errors.Is(err, protocol.ErrMalformed) {
			t.Errorf("%s: %+v, %v", says, copied, err)
		}
		there.Close()
	}
}

func guestThatGivesUp(t *testing.T, takes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, says := range map[string]string{
		"an error":      frame(protocol.FrameError, `{"code":"failed","message":"no space left"}`),
		"an early word": frame(protocol.FrameReply, "{}"),
		"a tree":        entry("x"),
		"nothing":       "",
	} {
		here, there := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, there, 1) // the request
			go func() { _, _ = io.CopyN(io.Discard, there, takes+100) }()
			_, _ = there.Write([]byte(says))
			if says == "" {
				there.Close()
			}
		}()
		_, err := CopyIn(ctx, here, "/dev/zero", &protocol.CopyIn{Path: "/x"}, CopyOptions{})
		if name == "an error" && (err == nil || !strings.Contains(err.Error(), "no space left")) || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if (name == "a tree" || name == "an early word") && !errors.Is(err, protocol.ErrMalformed) || ctx.Err() != nil {
			t.Errorf("%s, of one that takes %d bytes: %v", name, takes, err)
		}
		there.Close()
	}
}

// repeat reads the same again and again.
type repeat struct {
	b  []byte
	at int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}

// talk is a connection whose other end reads everything, says something, and
// goes.
func talk(t *testing.T, says io.Reader) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	go func() { _, _ = io.Copy(io.Discard, there) }()
	go func() {
		_, _ = io.Copy(there, says)
		there.Close()
	}()
	return here
}

// allocated is how many bytes were taken from the heap so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
