package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
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
		{"an error that is no JSON", frame(protocol.FrameError, "[1")},
		{"a credit of the wrong length", frame(protocol.FrameStdinCredit, "\x00\x01")},
		{"a credit for all there is", frame(protocol.FrameStdinCredit, "\xff\xff\xff\xff")},
		{"deep JSON", frame(protocol.FrameReply, strings.Repeat("[", 1<<20))},
		{"a tree in place of an answer", frame(protocol.FrameEntry, "f")},
		{"an entry above the root", entry("../../etc/passwd")},
		{"an absolute entry", entry("/etc/passwd")},
	}
	calls := []struct {
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
			_, err := CopyOut(ctx, conn, "/x", filepath.Join(dir, "in", "x"), nil)
			if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 1 {
				t.Errorf("written beside the destination: %v", found)
			}
			return err
		}},
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

// entry is a regular file of a tree, with some name.
func entry(name string) string {
	var b bytes.Buffer
	b.WriteByte('f')
	b.Write(make([]byte, 4+8+4+8))
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(name))))
	b.WriteString(name)
	b.Write([]byte{0, 0})
	return frame(protocol.FrameEntry, b.String())
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
