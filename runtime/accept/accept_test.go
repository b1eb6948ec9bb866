package accept

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// flaky is a listener whose first accepts fail.
type flaky struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		f.mu.Unlock()
		return nil, err
	}
	f.mu.Unlock()
	return f.Listener.Accept()
}

func listen(t *testing.T, errs ...error) *flaky {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return &flaky{Listener: l, errs: errs}
}

// Whatever an accept fails with, the next connection is served; only the end of the
// listener ends the loop.
func TestEachGoesOn(t *testing.T) {
	l := listen(t, syscall.ECONNABORTED, syscall.EMFILE, syscall.ENOBUFS, errors.New("anything"))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Each(l, func(c net.Conn) { _, _ = c.Write([]byte("x")) })
	}()
	for range 2 {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("a connection was not served: %v", err)
		}
		c.Close()
	}
	l.Close()
	<-ended
}

// A process that has no descriptor left still takes a connection, and knows.
func TestReserved(t *testing.T) {
	l := listen(t, syscall.EMFILE, syscall.EMFILE, syscall.EMFILE)
	scarce := make(chan bool, 3)
	hold := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Reserved(l, 2, func(_ net.Conn, s bool) { scarce <- s; <-hold })
	}()
	for _, want := range []bool{true, false} {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := <-scarce; got != want {
			t.Errorf("scarce = %v, want %v", got, want)
		}
	}
	close(hold)
	l.Close()
	<-ended
}
