package network

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Limits of what a guest says first, in bytes.
const (
	maxHello = 64 << 10 // of TLS
	maxLine  = 8 << 10  // of a protocol of lines
	maxHead  = 64 << 10 // of an HTTP request
)

// joinNamed joins a guest with a host that the policy allows by name, once the
// guest has named it: in the TLS handshake, or in each request of plain HTTP. A
// protocol that is neither reaches the address that the name was resolved to.
// What the host says is passed on from the start: some speak first.
func (n *Network) joinNamed(guest *guestConn, upstream net.Conn, to netip.AddrPort) error {
	var mu sync.Mutex
	over := false // the guest's side belongs to somebody else
	done := make(chan struct{})
	go func() {
		defer close(done)
		bb := make([]byte, 64<<10)
		b := &bb
		_, err := io.CopyBuffer(struct{ io.Writer }{guest}, struct{ io.Reader }{upstream}, *b)
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if err != nil {
			guest.Close()
		}
		_ = guest.CloseWrite()
	}()
	leave := func() {
		mu.Lock()
		over = true
		mu.Unlock()
		upstream.Close()
		<-done
	}
	r := bufio.NewReaderSize(guest, maxLine)
	first := io.Reader(r)
	switch classify(r) {
	case protocolTLS:
		hello, name, err := readServerName(n.ctx, r)
		if err == nil {
			err = n.checkName(name, to)
		}
		if err != nil {
			leave()
			return err
		}
		first = io.MultiReader(bytes.NewReader(hello), r)
	case protocolHTTP:
		leave()
		n.proxyHTTP(guest, r, to)
		return nil
	}
	_, _ = io.Copy(upstream, first)
	<-done
	return nil
}

type protocolKind int

const (
	protocolOther protocolKind = iota
	protocolTLS
	protocolHTTP
)

// classify tells a protocol by its first bytes, which stay in r. It waits for a
// whole line where there may be one: servers take much for a request.
func classify(r *bufio.Reader) protocolKind {
	for n := 1; n <= maxLine; n++ {
		b, err := r.Peek(n)
		if err != nil {
			return protocolOther
		}
		switch c := b[n-1]; {
		case n == 1 && c == 0x16:
			return protocolTLS
		case c == '\n':
			line := strings.Trim(string(b), " \t\r\n")
			if line == "" {
				continue // some servers skip empty lines
			}
			method, _, _ := strings.Cut(line, " ")
			if strings.Contains(strings.ToUpper(line), "HTTP/") || strings.EqualFold(method, "GET") {
				return protocolHTTP
			}
			return protocolOther
		case c < ' ' && c != '\r' && c != '\t', c > '~':
			return protocolOther
		}
	}
	return protocolHTTP // a line that long is a request, or nothing good
}

var errGotHello = errors.New("the hello is read")

// readServerName reads a TLS ClientHello and returns its bytes and the name in
// it; "" when it has none.
func readServerName(ctx context.Context, r io.Reader) (hello []byte, name string, err error) {
	var read bytes.Buffer
	conn := &helloConn{r: io.TeeReader(io.LimitReader(r, maxHello), &read)}
	err = tls.Server(conn, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errGotHello
	}}).HandshakeContext(ctx)
	if !errors.Is(err, errGotHello) {
		return nil, "", &wrongName{"", "the guest did not begin with a TLS handshake that can be read"}
	}
	return read.Bytes(), name, nil
}

// helloConn reads; what is written, an alert, goes nowhere.
type helloConn struct {
	net.Conn
	r io.Reader
}

func (c *helloConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *helloConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *helloConn) Close() error                     { return nil }
func (c *helloConn) SetDeadline(time.Time) error      { return nil }
func (c *helloConn) SetWriteDeadline(time.Time) error { return nil }

// proxyHTTP serves the requests of one connection from the host at an address.
// Each is parsed and written anew: there is nothing to smuggle in.
func (n *Network) proxyHTTP(guest net.Conn, r io.Reader, to netip.AddrPort) {
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.open(ctx, "tcp4", to.String())
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: 1 << 20,
	}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      quiet,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", to.String()
			p.Out.Host = p.In.Host
		},
	}
	ended := make(chan struct{})
	var once sync.Once
	server := &http.Server{
		MaxHeaderBytes: maxHead,
		ErrorLog:       quiet,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				once.Do(func() { close(ended) })
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			host := req.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			err := n.checkName(host, to)
			if req.Method == http.MethodConnect || req.Method == "PRI" {
				err = &wrongName{host, "the method " + req.Method + " is not allowed"}
			}
			var wrong *wrongName
			if errors.As(err, &wrong) {
				n.deny("tcp", to, wrong.name, wrong.reason)
				w.Header().Set("Connection", "close")
				http.Error(w, "lumina: "+wrong.reason, http.StatusForbidden)
				return
			}
			proxy.ServeHTTP(w, req)
			if req.Header.Get("Upgrade") != "" {
				// A connection that was handed over is not closed by the server.
				once.Do(func() { close(ended) })
			}
		}),
	}
	listener := make(oneListener, 1)
	listener <- &readConn{guest, r}
	go func() { _ = server.Serve(listener) }()
	select {
	case <-ended:
	case <-n.ctx.Done():
	}
	server.Close()
}

// readConn is a connection whose first bytes have been read.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// oneListener accepts one connection, and waits for Close. The server that it is
// for closes it once.
type oneListener chan net.Conn

func (l oneListener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l oneListener) Close() error {
	close(l)
	return nil
}

func (l oneListener) Addr() net.Addr { return &net.TCPAddr{} }
