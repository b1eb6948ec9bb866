//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

func TestSessionOf(t *testing.T) {
	tests := []struct {
		name, stat string
		want       int
	}{
		{"plain", "12 (sh) S 1 12 11 34816 ", 11},
		{"name with parentheses and blanks", "12 (a) R 1 2 3) (b) S 1 12 11 34816", 11},
		{"cut off", "12 (sh) S 1", 0},
		{"empty", "", 0},
		{"no number", "12 (sh) S 1 12 x 0", 0},
	}
	for _, tt := range tests {
		if got := sessionOf(tt.stat); got != tt.want {
			t.Errorf("%s: sessionOf(%q) = %d, want %d", tt.name, tt.stat, got, tt.want)
		}
	}
}

// fakeSystem stands in for the init: what the tests here run needs no VM.
type fakeSystem struct{}

func (fakeSystem) Configure(*protocol.Configure, func() (time.Time, error)) (*protocol.Configured, error) {
	return &protocol.Configured{}, nil
}
func (fakeSystem) SetClock(func() (time.Time, error)) error { return nil }
func (fakeSystem) Measure() (bool, error)                   { return false, nil }
func (fakeSystem) Limit(int64, int64) error                 { return nil }
func (fakeSystem) Sync() error                              { return nil }

func (fakeSystem) Share(string) (io.ReadWriteCloser, error) { return nil, errors.ErrUnsupported }
func (fakeSystem) Changes(w io.Writer) error                { return nil }
func (fakeSystem) Unpack(_ *protocol.Unpack, archive io.Reader) error {
	_, err := io.Copy(io.Discard, archive)
	return err
}
func (fakeSystem) NextLayer(*protocol.Layer) error { return nil }
func (fakeSystem) PowerOff()                       {}

// The reaper takes every child of a process: one for all tests.
var reaper = sync.OnceValue(NewReaper)

// serve starts an agent and returns what opens streams to it.
func serve(t *testing.T, configured bool) *mux.Session {
	t.Helper()
	here, there := net.Pipe()
	client, server := mux.Client(here), mux.Server(there)
	t.Cleanup(func() { client.Close() })
	s := NewServer(fakeSystem{}, reaper())
	if configured {
		s.gate.unlock()
	}
	go func() { _ = s.Serve(server) }()
	return client
}

// exchange opens a stream, sends a request and returns the frames that come.
func exchange(t *testing.T, client *mux.Session, req *protocol.Request, more ...func(*protocol.Writer)) (stdout string, exit protocol.Exit, err error) {
	t.Helper()
	conn, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	if err := w.Message(protocol.FrameRequest, req); err != nil {
		t.Fatal(err)
	}
	for _, m := range more {
		m(w)
	}
	var out bytes.Buffer
	for {
		ft, payload, err := r.Next()
		if err != nil {
			return out.String(), exit, err
		}
		switch ft {
		case protocol.FrameStdout:
			out.Write(payload)
		case protocol.FrameExit:
			return out.String(), exit, protocol.Decode(payload, &exit)
		case protocol.FrameError:
			return out.String(), exit, protocol.DecodeError(payload)
		}
	}
}

func execRequest(e protocol.Exec) *protocol.Request {
	return &protocol.Request{Version: protocol.Version, Op: protocol.OpExec, Exec: &e}
}

func TestExec(t *testing.T) {
	client := serve(t, true)
	out, exit, err := exchange(t, client, execRequest(protocol.Exec{Shell: true, Args: []string{"echo $A; exit 3"}, Env: []string{"A=b"}, Dir: "/"}))
	if out != "b\n" || exit.Code != 3 || err != nil {
		t.Errorf("exec = %q, %+v, %v", out, exit, err)
	}
	_, exit, err = exchange(t, client, execRequest(protocol.Exec{Shell: true, Args: []string{"kill -15 $$"}}))
	if exit != (protocol.Exit{Code: 143, Signal: 15}) || err != nil {
		t.Errorf("killed = %+v, %v", exit, err)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	client := serve(t, true)
	tests := []struct {
		name string
		req  protocol.Request
		want protocol.ErrorCode
	}{
		{"another version", protocol.Request{Version: protocol.Version + 1, Op: protocol.OpExec}, protocol.CodeVersion},
		{"unknown operation", protocol.Request{Version: protocol.Version, Op: "dance"}, protocol.CodeRequest},
		{"exec of nothing", protocol.Request{Version: protocol.Version, Op: protocol.OpExec}, protocol.CodeRequest},
		{"no arguments", *execRequest(protocol.Exec{}), protocol.CodeRequest},
		{"no such program", *execRequest(protocol.Exec{Args: []string{"none"}, Env: []string{"PATH=/nowhere"}}), protocol.CodeNotFound},
		{"a file as the directory", *execRequest(protocol.Exec{Args: []string{"/bin/true"}, Dir: "/etc/passwd"}), protocol.CodeNotFound},
		{"a directory below a file", *execRequest(protocol.Exec{Args: []string{"/bin/true"}, Dir: "/etc/passwd/x"}), protocol.CodeNotFound},
		{"a directory as a program", *execRequest(protocol.Exec{Args: []string{"/etc"}}), protocol.CodeFailed},
		{"logs of nothing", protocol.Request{Version: protocol.Version, Op: protocol.OpLogs, Logs: &protocol.Logs{ID: "77"}}, protocol.CodeNotFound},
		{"signal that is none", protocol.Request{Version: protocol.Version, Op: protocol.OpKill, Kill: &protocol.Kill{ID: "1", Signal: 1000}}, protocol.CodeRequest},
		{"relative path to copy to", protocol.Request{Version: protocol.Version, Op: protocol.OpCopyIn, CopyIn: &protocol.CopyIn{Path: "x"}}, protocol.CodeRequest},
		{"port that nobody listens on", protocol.Request{Version: protocol.Version, Op: protocol.OpDial, Dial: &protocol.Dial{Port: 1}}, protocol.CodeNotFound},
	}
	for _, tt := range tests {
		_, _, err := exchange(t, client, &tt.req)
		var e *protocol.Error
		if !errors.As(err, &e) || e.Code != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// More input than the window, to a process that reads none: the host is at
// fault, and the process does not outlive it.
func TestStdinOverrunEndsTheExec(t *testing.T) {
	client := serve(t, true)
	_, _, err := exchange(t, client, execRequest(protocol.Exec{Args: []string{"/bin/sleep", "600"}, Stdin: true}), func(w *protocol.Writer) {
		for range 2 * protocol.StdinWindow / protocol.MaxData {
			_ = w.Data(protocol.FrameStdin, make([]byte, protocol.HeaderSize+protocol.MaxData))
		}
	})
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeRequest {
		t.Errorf("overrun = %v, want a refusal", err)
	}
}

func TestOperationsWaitForConfigure(t *testing.T) {
	client := serve(t, false)
	done := make(chan error, 1)
	go func() {
		_, _, err := exchange(t, client, execRequest(protocol.Exec{Args: []string{"/bin/true"}}))
		done <- err
	}()
	conn, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	_ = w.Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpConfigure, Configure: &protocol.Configure{}})
	if err := r.Expect(protocol.FrameReply, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Expect(protocol.FrameReply, new(protocol.Configured)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the exec that waited = %v", err)
	}
	_, _, err = exchange(t, client, &protocol.Request{Version: protocol.Version, Op: protocol.OpConfigure, Configure: &protocol.Configure{}})
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeRequest {
		t.Errorf("a second configure = %v, want a refusal", err)
	}
}

func TestDialKeepsHalfClose(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.ToUpper(b))
	}()
	client := serve(t, true)
	conn, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	_ = w.Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpDial, Dial: &protocol.Dial{Port: port}})
	_, _ = conn.Write([]byte("sent before the reply")) // as a fast client would
	if err := r.Expect(protocol.FrameReply, nil); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*mux.Stream).CloseWrite()
	if b, err := io.ReadAll(r.Rest()); string(b) != "SENT BEFORE THE REPLY" {
		t.Errorf("answer = %q, %v", b, err)
	}
}

// An abnormal end of a connection is one at its other end, too.
func TestDialKeepsResets(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *net.TCPConn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c.(*net.TCPConn)
		}
	}()
	client := serve(t, true)
	dial := func() (net.Conn, *protocol.Reader, *net.TCPConn) {
		conn, err := client.Open()
		if err != nil {
			t.Fatal(err)
		}
		r := protocol.NewReader(conn)
		_ = protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpDial,
			Dial: &protocol.Dial{Port: uint16(l.Addr().(*net.TCPAddr).Port)}})
		if err := r.Expect(protocol.FrameReply, nil); err != nil {
			t.Fatal(err)
		}
		return conn, r, <-accepted
	}
	conn, r, server := dial()
	defer conn.Close()
	_, _ = server.Write([]byte("part"))
	if _, err := io.ReadFull(r.Rest(), make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = server.SetLinger(0)
	server.Close()
	if b, err := io.ReadAll(r.Rest()); err == nil {
		t.Errorf("a reset server looks like one that ended: %q", b)
	}
	conn, _, server = dial()
	defer server.Close()
	conn.Close()
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that broke off looks like this: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, protocol.MaxDatagram)
		for {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDP(bytes.ToUpper(b[:n]), from)
		}
	}()
	conn, err := serve(t, true).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := protocol.NewReader(conn)
	_ = protocol.NewWriter(conn).Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpDatagrams,
		Dial: &protocol.Dial{Port: uint16(server.LocalAddr().(*net.UDPAddr).Port)}})
	if err := r.Expect(protocol.FrameReply, nil); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, protocol.MaxDatagram)
	for _, text := range []string{"a", "", strings.Repeat("b", 9000)} {
		if err := protocol.WriteDatagram(conn, []byte(text)); err != nil {
			t.Fatal(err)
		}
		n, err := protocol.ReadDatagram(r.Rest(), b)
		if want := strings.ToUpper(text); err != nil || string(b[:n]) != want {
			t.Errorf("answer = %.20q, %v, want %.20q", b[:n], err, want)
		}
	}
}

func TestEcho(t *testing.T) {
	conn, err := serve(t, true).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	_ = w.Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpEcho})
	if err := r.Expect(protocol.FrameReply, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "twice")
	_ = conn.(*mux.Stream).CloseWrite()
	if b, err := io.ReadAll(r.Rest()); string(b) != "twice" {
		t.Errorf("came back: %q, %v", b, err)
	}
}

func TestCancelledExecIsKilled(t *testing.T) {
	client := serve(t, true)
	conn, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	pidFile := t.TempDir() + "/pid"
	_ = protocol.NewWriter(conn).Message(protocol.FrameRequest, execRequest(protocol.Exec{
		Shell: true, Args: []string{"sleep 600 & echo $! > " + pidFile + "; echo up; wait"}}))
	if ft, p, err := protocol.NewReader(conn).Next(); ft != protocol.FrameStdout || string(p) != "up\n" {
		t.Fatalf("%d %q %v", ft, p, err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for alive(strings.TrimSpace(string(pid))) {
		if ctx.Err() != nil {
			t.Fatal("the background child outlived the client")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A signal reaches the process's group, and what its trap prints and returns comes.
func TestSignalReachesTheGroup(t *testing.T) {
	client := serve(t, true)
	conn, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, r := protocol.NewWriter(conn), protocol.NewReader(conn)
	_ = w.Message(protocol.FrameRequest, execRequest(protocol.Exec{Shell: true, Args: []string{"trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done 2>/dev/null"}}))
	if ft, p, err := r.Next(); ft != protocol.FrameStdout || string(p) != "up\n" {
		t.Fatalf("%d %q %v", ft, p, err)
	}
	if err := w.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The shell runs the trap when the program that it waits for has ended.
	if ft, p, err := r.Next(); ft != protocol.FrameStdout || string(p) != "bye\n" {
		t.Fatalf("%d %q %v", ft, p, err)
	}
	var exit protocol.Exit
	if err := r.Expect(protocol.FrameExit, &exit); err != nil || exit.Code != 7 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestSignalThatIsNone(t *testing.T) {
	for _, number := range []byte{0, 65, 255} {
		_, _, err := exchange(t, serve(t, true), execRequest(protocol.Exec{Args: []string{"/bin/sleep", "600"}}), func(w *protocol.Writer) {
			_ = w.Data(protocol.FrameSignal, append(make([]byte, protocol.HeaderSize), number))
		})
		var e *protocol.Error
		if !errors.As(err, &e) || e.Code != protocol.CodeRequest {
			t.Errorf("signal %d: %v, want a refusal", number, err)
		}
	}
}

// The standard files are the user's to open again, and root's directory is entered for it.
func TestStandardFilesAreTheUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs to become another user")
	}
	dir := t.TempDir() + "/missing/below"
	client := serve(t, true)
	script := "cat /dev/stdin >/dev/stdout; echo err >/proc/self/fd/2; pwd; id -u"
	out, exit, err := exchange(t, client, execRequest(protocol.Exec{Shell: true, Args: []string{script}, Stdin: true, User: "4321", Dir: dir}), func(w *protocol.Writer) {
		_ = w.Data(protocol.FrameStdin, append(make([]byte, protocol.HeaderSize), "in\n"...))
		_ = w.Data(protocol.FrameStdinClose, make([]byte, protocol.HeaderSize))
	})
	if out != "in\n"+dir+"\n4321\n" || exit.Code != 0 || err != nil {
		t.Errorf("%q, %+v, %v", out, exit, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, exit, err = exchange(t, client, execRequest(protocol.Exec{Args: []string{"/bin/pwd"}, User: "4321", Dir: dir})); out != dir+"\n" || err != nil {
		t.Errorf("in a directory of root's: %q, %+v, %v", out, exit, err)
	}
}
