package mux

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// pair returns the two ends of a session over a unix socket pair's worth of
// real kernel buffering.
func pair(t testing.TB) (client, server *Session) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client, server = Client(c), Server(s)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func open(t testing.TB, client, server *Session) (near, far net.Conn) {
	t.Helper()
	near, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := near.Write(nil); err != nil {
		t.Fatal(err)
	}
	far, err = server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestEchoKeepsEveryByteAndHalfClose(t *testing.T) {
	client, server := pair(t)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c, err := client.Open()
			if err != nil {
				t.Error(err)
				return
			}
			sent := make([]byte, 1<<20+17)
			_, _ = rand.Read(sent)
			go func() {
				_, _ = c.Write(sent)
				_ = c.(*Stream).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("echo of %d bytes = %d bytes, %v", len(sent), len(got), err)
			}
			c.Close()
		})
	}
	wg.Wait()
	if n := client.Streams(); n != 0 {
		t.Errorf("client holds %d streams after all were closed", n)
	}
}

func TestReaderThatStopsHoldsUpItsOwnStreamOnly(t *testing.T) {
	client, server := pair(t)
	near, far := open(t, client, server)
	_ = near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := near.Write(make([]byte, 2*Window))
	if n != Window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Write to a stalled reader = %d, %v, want the window, %d, and the deadline", n, err, Window)
	}
	near2, far2 := open(t, client, server)
	go func() { _, _ = near2.Write([]byte("x")) }()
	if _, err := io.ReadFull(far2, make([]byte, 1)); err != nil {
		t.Errorf("the other stream: %v", err)
	}
	_ = near.SetWriteDeadline(time.Time{})
	go func() { _, _ = io.CopyN(io.Discard, far, 2*Window) }()
	if n, err := near.Write(make([]byte, Window)); n != Window || err != nil {
		t.Errorf("Write after the reader woke = %d, %v", n, err)
	}
}

func TestCloseResetsThePeerButKeepsWhatWasWritten(t *testing.T) {
	client, server := pair(t)
	near, far := open(t, client, server)
	if _, err := far.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	far.Close()
	got, err := io.ReadAll(near)
	if string(got) != "last words" || !errors.Is(err, ErrReset) {
		t.Errorf("ReadAll = %q, %v, want the bytes, then ErrReset", got, err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, ErrReset) {
		t.Errorf("Write = %v, want ErrReset", err)
	}
}

// Whatever its length, what WriteClose is given arrives, and then the end.
func TestWriteClose(t *testing.T) {
	for _, size := range []int{0, 1, MaxPayload, MaxPayload + 1, Window} {
		client, server := pair(t)
		near, far := open(t, client, server)
		sent := bytes.Repeat([]byte{'x'}, size)
		if err := far.(*Stream).WriteClose(sent); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(near)
		if !bytes.Equal(got, sent) || !errors.Is(err, ErrReset) {
			t.Errorf("of %d bytes %d arrived, and %v", size, len(got), err)
		}
		if n := server.Streams() + client.Streams(); n != 0 {
			t.Errorf("after %d bytes %d streams are open", size, n)
		}
		if err := far.(*Stream).WriteClose(sent); !errors.Is(err, net.ErrClosed) && size > 0 {
			t.Errorf("a second time: %v", err)
		}
	}
}

func TestCloseWakesReader(t *testing.T) {
	client, server := pair(t)
	near, _ := open(t, client, server)
	done := make(chan error)
	go func() {
		_, err := near.Read(make([]byte, 1))
		done <- err
	}()
	near.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
}

func TestDeadlineIsMovedWhileReading(t *testing.T) {
	client, server := pair(t)
	near, _ := open(t, client, server)
	done := make(chan error)
	go func() {
		_, err := near.Read(make([]byte, 1))
		done <- err
	}()
	_ = near.SetReadDeadline(time.Now().Add(time.Hour))
	_ = near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v, want os.ErrDeadlineExceeded", err)
	}
}

func TestSessionEndReachesEveryStream(t *testing.T) {
	client, server := pair(t)
	near, _ := open(t, client, server)
	server.Close()
	if _, err := io.ReadAll(near); err == nil {
		t.Error("Read of a stream whose session ended = nil error")
	}
	<-client.Done()
	if _, err := client.Open(); err == nil {
		t.Error("Open on an ended session = nil error")
	}
}

func frame(id uint32, flags byte, length int, payload string) string {
	b := make([]byte, headerSize)
	putHeader(b, id, flags, length)
	return string(b) + payload
}

func TestHostilePeer(t *testing.T) {
	tests := []struct{ name, sent string }{
		{"no flags", frame(1, 0, 0, "")},
		{"unknown flag", frame(1, flagsEnd, 0, "")},
		{"data longer than a frame may be", frame(1, flagOpen|flagData, MaxPayload+1, "")},
		{"length without payload", frame(1, flagOpen, 5, "")},
		{"payload and credit in one", frame(1, flagOpen|flagData|flagCredit, 1, "x")},
		{"stream never opened", frame(7, flagData, 1, "x")},
		{"stream zero", frame(0, flagData, 1, "x")},
		{"opened twice", frame(1, flagOpen, 0, "") + frame(1, flagOpen, 0, "")},
		{"credit never used", frame(1, flagOpen, 0, "") + frame(1, flagCredit, 1, "")},
		{"data after the end", frame(1, flagOpen|flagFin, 0, "") + frame(1, flagData, 1, "x")},
		{"window overrun", frame(1, flagOpen, 0, "") + overrun()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			here, there := net.Pipe()
			s := Server(there)
			go func() { _, _ = io.WriteString(here, tt.sent) }()
			<-s.Done()
			if !errors.Is(s.Err(), ErrProtocol) {
				t.Errorf("session error = %v, want ErrProtocol", s.Err())
			}
		})
	}
	t.Run("opened towards the opening end", func(t *testing.T) {
		here, there := net.Pipe()
		s := Client(there)
		go func() { _, _ = io.WriteString(here, frame(1, flagOpen, 0, "")) }()
		<-s.Done()
		if !errors.Is(s.Err(), ErrProtocol) {
			t.Errorf("session error = %v, want ErrProtocol", s.Err())
		}
	})
}

func overrun() string {
	var b bytes.Buffer
	for n := 0; n <= Window; n += MaxPayload {
		b.WriteString(frame(1, flagData, MaxPayload, string(make([]byte, MaxPayload))))
	}
	return b.String()
}

// FuzzSession feeds a session any bytes: it must neither panic nor hold more
// than the windows of the streams that the bytes opened.
func FuzzSession(f *testing.F) {
	f.Add([]byte(frame(1, flagOpen|flagData, 3, "abc") + frame(1, flagFin, 0, "")))
	f.Add([]byte(frame(1, flagOpen, 0, "") + frame(1, flagReset, 0, "") + frame(1, flagData, 2, "zz")))
	f.Add([]byte(overrun()))
	f.Fuzz(func(t *testing.T, data []byte) {
		here, there := net.Pipe()
		s := Server(there)
		go func() {
			_, _ = here.Write(data)
			here.Close()
		}()
		<-s.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		if int(s.lastID) > 0 && len(data) < headerSize {
			t.Errorf("%d bytes opened a stream", len(data))
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	client, server := pair(b)
	near, far := open(b, client, server)
	go func() { _, _ = io.Copy(far, far) }()
	buf := make([]byte, 64)
	for b.Loop() {
		_, _ = near.Write(buf)
		if _, err := io.ReadFull(near, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenCallClose(b *testing.B) {
	client, server := pair(b)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 64)
				n, _ := c.Read(buf)
				_, _ = c.Write(buf[:n])
				c.Close()
			}()
		}
	}()
	buf := make([]byte, 64)
	for b.Loop() {
		c, err := client.Open()
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write(buf)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

func BenchmarkThroughput(b *testing.B) {
	client, server := pair(b)
	near, far := open(b, client, server)
	go func() { _, _ = io.Copy(io.Discard, far) }()
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
