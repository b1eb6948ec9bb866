//go:build linux

package network

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// renaming changes a name in what is written once a number of hellos have been.
type renaming struct {
	net.Conn
	from, to string
	hellos   int
}

func (c *renaming) Write(b []byte) (int, error) {
	at := 0
	for at+recordHeader < len(b) && b[at] != recordHandshake { // a change of cipher comes before
		at += recordHeader + int(b[at+3])<<8 + int(b[at+4])
	}
	if at+recordHeader < len(b) && b[at] == recordHandshake && b[at+recordHeader] == clientHello {
		if c.hellos++; c.hellos == 2 {
			if n, err := c.Conn.Write(bytes.Replace(b, []byte(c.from), []byte(c.to), 1)); err != nil {
				return n, err
			}
			return len(b), nil
		}
	}
	return c.Conn.Write(b)
}

// secondHello names another host in the hello that a server has asked for, and says
// whether the server got it.
func secondHello(g *guest) string {
	reached := make(chan string, 10)
	answer := retryServer(g.t, reached)
	g.net.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return answer(ctx, "", "") }
	g.ask("www.example.test")
	for _, name := range []string{"www.example.test", "www.evilsit.test"} {
		c, err := g.connect("198.51.100.10:443")
		if err != nil {
			return err.Error()
		}
		client := tls.Client(&renaming{Conn: c, from: "www.example.test", to: name}, &tls.Config{ServerName: "www.example.test", InsecureSkipVerify: true})
		err = client.Handshake()
		if name == "www.example.test" && err != nil {
			return "an honest handshake failed: " + err.Error()
		}
		c.Close()
	}
	for {
		select {
		case name := <-reached:
			if name != "www.example.test" {
				return name
			}
		default:
			if list, _ := g.net.Denied(); len(list) != 1 || list[0].Name != "www.evilsit.test" {
				return "nothing was denied"
			}
			return ""
		}
	}
}

// plainServer is a guest that names an allowed host in a hello, and then speaks the plain
// protocol of a server there that ignores what it does not know.
func plainServer(g *guest) string {
	heard := make(chan string, 10)
	answer := server(g.t, func(c *net.TCPConn) {
		defer c.Close()
		hello := make([]byte, 5)
		if _, err := io.ReadFull(c, hello); err != nil {
			return
		}
		_, _ = io.WriteString(c, "220 mail.example.test ESMTP\r\n502 what?\r\n")
		rest, _ := io.ReadAll(c)
		heard <- string(rest)
	})
	g.net.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return answer(ctx, "", "") }
	g.ask("www.example.test")
	const mail = "\r\nHELO x\r\nMAIL FROM:<a@b>\r\n"
	early := string([]byte{23, 3, 3, 0, byte(len(mail))}) + mail
	for _, more := range []string{mail, early} {
		c, err := g.connect("198.51.100.10:443")
		if err != nil {
			return err.Error()
		}
		_, _ = c.Write(append(captureHello(g.t, "www.example.test"), more...))
		_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // only ends a hang
		got, _ := io.ReadAll(c)
		c.Close()
		if said := <-heard; strings.Contains(said, "MAIL") || strings.Contains(string(got), "220") {
			return fmt.Sprintf("the server heard %q, the guest %q", said, got)
		}
	}
	if list, _ := g.net.Denied(); len(list) == 0 {
		return "nothing was denied"
	}
	return ""
}

// plainAnswer is a guest whose request is answered in the plain protocol of a server that
// ignores what it does not know.
func plainAnswer(g *guest) string {
	heard := make(chan string, 1)
	answer := server(g.t, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // only ends a hang
		r := bufio.NewReader(c)
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		_, _ = io.WriteString(c, "-ERR unknown command\r\n")
		rest, _ := io.ReadAll(r)
		heard <- string(rest)
	})
	g.net.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return answer(ctx, "", "") }
	g.ask("www.example.test")
	const request = "GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n"
	got, _ := g.say("198.51.100.10:80", request+request)
	if said := <-heard; strings.Contains(said, "GET") || strings.Contains(got, "ERR") {
		return fmt.Sprintf("the server heard %q, the guest %q", said, got)
	}
	if list, _ := g.net.Denied(); len(list) != 1 || !strings.Contains(list[0].Reason, "does not answer in HTTP") {
		return fmt.Sprint("denied: ", list)
	}
	return ""
}

// retryServer is a TLS server that asks each client for another hello. It says which
// names it reads.
func retryServer(t testing.TB, reached chan<- string) func(context.Context, string, string) (net.Conn, error) {
	certificate, key := selfSigned(t, t.TempDir(), "www.example.test")
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return server(t, func(c *net.TCPConn) {
		defer c.Close()
		// Go's server reads the name of the first hello only; others of the second.
		var seen bytes.Buffer
		s := tls.Server(&recording{c, &seen}, &tls.Config{Certificates: []tls.Certificate{pair}, CurvePreferences: []tls.CurveID{tls.CurveP384}})
		err := s.Handshake()
		r := bufio.NewReader(&seen)
		for {
			header, content, e := readRecord(r)
			if e != nil {
				break
			}
			if header[0] == recordHandshake && bytes.Contains(content, []byte("evilsit")) {
				reached <- "www.evilsit.test"
			}
		}
		if err == nil {
			reached <- s.ConnectionState().ServerName
		}
	})
}

type recording struct {
	net.Conn
	to io.Writer
}

func (c *recording) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_, _ = c.to.Write(p[:n])
	return n, err
}

// A WebSocket's bytes are its own once the server has agreed, and requests like any
// other before; each request of a connection waits for the answer to the one before.
func TestWebSocket(t *testing.T) {
	var requests atomic.Int64
	g := newGuestOf(t, mustAllow(t, "example.test"), server(t, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReader(c)
		for {
			head := ""
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				head += line
			}
			requests.Add(1)
			if !strings.Contains(head, "Upgrade: websocket") || strings.HasPrefix(head, "GET /no") {
				_, _ = io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
				continue
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(c, r)
			return
		}
	}))
	g.ask("example.test")
	const head = " HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	got := g.must(t, "198.51.100.10:80", "GET /"+" HTTP/1.1\r\nHost: example.test\r\n\r\nGET /"+head+"\x81\x00GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
	if !strings.Contains(got, " 426 ") || !strings.HasSuffix(got, "\x81\x00GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n") {
		t.Errorf("a WebSocket after another request: %q", got)
	}
	requests.Store(0)
	got = g.must(t, "198.51.100.10:80", "GET /no"+head+"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
	if n := requests.Load(); n != 1 || !strings.Contains(got, " 403 ") || !strings.Contains(got, "lumina: the name is not allowed") {
		t.Errorf("a WebSocket that the server does not want: %d requests reached it, %q", n, got)
	}
}
