package http1_test

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/network/http1"
)

// readAll reads requests with their bodies as they are passed on.
func readAll(text string) (passed string, hosts []string, err error) {
	r := bufio.NewReaderSize(strings.NewReader(text), 4096)
	for {
		q, err := http1.ReadRequest(r)
		if err == io.EOF {
			return passed, hosts, nil
		}
		if err != nil {
			return passed, hosts, err
		}
		passed, hosts = passed+string(q.Head), append(hosts, q.Host)
		if body := q.Body(r); body != nil {
			b, err := io.ReadAll(body)
			passed += string(b)
			if err != nil {
				return passed, hosts, err
			}
		}
	}
}

func TestRequests(t *testing.T) {
	const host = "Host: a.test\r\n"
	long := strings.Repeat("x", 10000)
	for _, tt := range []struct{ name, text, passed string }{
		{"as it is", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \xff y\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \xff y\r\n\r\n"},
		{"host", "GET / HTTP/1.0\r\nhost:A.Test:80 \r\n\r\n", "GET / HTTP/1.0\r\nhost: a.test\r\n\r\n"},
		{"port", "GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n"},
		{"URL", "GET HTTP://A.test?q HTTP/1.1\r\n" + host + "\r\n", "GET /?q HTTP/1.1\r\n" + host + "\r\n"},
		{"all", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n"},
		{"long lines", "GET /" + long + " HTTP/1.1\r\n" + host + "Cookie: " + long + "\r\n\r\n", "GET /" + long + " HTTP/1.1\r\n" + host + "Cookie: " + long + "\r\n\r\n"},
		{"length, and another", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n" + host + "\r\n", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n" + host + "\r\n"},
		{"chunks, and another", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n"},
		{"HTTP/2 is not asked for", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "\r\n"},
		{"nor beside a WebSocket", "GET / HTTP/1.1\r\n" + host + "Connection: keep-alive, Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "Connection: keep-alive\r\n\r\n"},
		{"a WebSocket", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _, err := readAll(tt.text); got != tt.passed || err != nil {
				t.Errorf("passed on %q, %v, want %q", got, err, tt.passed)
			}
		})
	}
	post := "POST / HTTP/1.1\r\n" + host
	for _, text := range []string{
		"\r\nGET / HTTP/1.1\r\n" + host + "\r\n", " GET / HTTP/1.1\r\n" + host + "\r\n", "get / HTTP/1.1\r\n" + host + "\r\n", "GET\x00 / HTTP/1.1\r\n" + host + "\r\n",
		"GET /\r\n", "GET / HTTP/0.9\r\n" + host + "\r\n", "GET / HTTP/2.0\r\n" + host + "\r\n", "GET / http/1.1\r\n" + host + "\r\n", "GET / HTTP/1.1 \r\n" + host + "\r\n", "GET  / HTTP/1.1\r\n" + host + "\r\n", "GET\t/ HTTP/1.1\r\n" + host + "\r\n",
		"GET /\xff HTTP/1.1\r\n" + host + "\r\n", "GET /\x01 HTTP/1.1\r\n" + host + "\r\n", "GET /\x7f HTTP/1.1\r\n" + host + "\r\n", "GET a.test HTTP/1.1\r\n" + host + "\r\n", "GET https://a.test/ HTTP/1.1\r\n" + host + "\r\n",
		"GET http://b.test/ HTTP/1.1\r\n" + host + "\r\n", "GET http://a.test@b.test/ HTTP/1.1\r\n" + host + "\r\n", "GET http://a.test:81/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", "GET * HTTP/1.1\r\n" + host + "\r\n",
		"CONNECT a.test:80 HTTP/1.1\r\n" + host + "\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "SSH-2.0-x\r\n", "EHLO me\r\n", "HELO / HTTP/1.1\r\n" + host + "\r\n", "SET / HTTP/1.1\r\n" + host + "\r\n", "NICK /x HTTP/1.1\r\n" + host + "\r\n", "\x00\x00\x00\x08",
		"GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" + host + host + "\r\n", "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test:80:b.test\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a.test\x00\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test:080\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test:65536\r\n\r\n",
		"GET / HTTP/1.1\n" + host + "\r\n", "GET / HTTP/1.1\r\nHost: a.test\n\r\n", "GET / HTTP/1.1\r\nX: a\rHost: b.test\r\n" + host + "\r\n", "GET / HTTP/1.1\r\n" + host + "X\r\n\r\n", "GET / HTTP/1.1\r\n" + host + ": y\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "X: \x0b\r\n\r\n",
		"GET / HTTP/1.1\r\n" + host + "Connection: close, Host\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", http1.MaxHead) + "\r\n\r\n",
		post + "Content-Length: +3\r\n\r\nabc", post + "Content-Length: 3, 3\r\n\r\nabc", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", post + "Content-Length:\r\n\r\n", post + "Content-Length: 9999999999999999999\r\n\r\n",
		post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		post + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b.test\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n\r\n",
	} {
		if got, _, err := readAll(text); !errors.As(err, new(http1.Refused)) {
			t.Errorf("%.100q is passed on as %.100q, %v", text, got, err)
		}
	}
}

// Where a response ends.
func TestResponses(t *testing.T) {
	for _, tt := range []struct {
		name, method, text, body string
		endless                  bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcnext", "abc", false},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\nnext", "3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n", false},
		{"the connection's end", "GET", "HTTP/1.0 200 OK\r\n\r\nabc", "abc", true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnext", "", false},
		{"no content", "GET", "HTTP/1.1 204 No Content\n\nnext", "", false},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nnext", "", false},
		{"interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nnext", "", false},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "abc", true},
		{"half a head", "GET", "HTTP/1.1 200 OK\r\nA: b", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := bufio.NewReader(strings.NewReader(tt.text))
			s, err := http1.ReadResponse(r, tt.method)
			if err != nil || !strings.HasPrefix(tt.text, string(s.Head)) {
				t.Fatalf("head %q, %v", s.Head, err)
			}
			body, endless := s.Body(r)
			var got []byte
			if body != nil {
				if got, err = io.ReadAll(body); err != nil {
					t.Fatal(err)
				}
			}
			rest, _ := io.ReadAll(r)
			if string(got) != tt.body || endless != tt.endless || !endless && string(rest) != "next" {
				t.Errorf("body %q, endless %v, then %q", got, endless, rest)
			}
		})
	}
}

// What a server of another protocol says is no answer.
func TestResponsesOfOthers(t *testing.T) {
	for _, text := range []string{"220 hello\r\nabc", "+OK\r\n", "-ERR unknown command\r\n", "ICY 200 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1\r\n\r\n", "SSH-2.0-x", "E", strings.Repeat("x", 1<<16)} {
		if s, err := http1.ReadResponse(bufio.NewReader(strings.NewReader(text)), "GET"); !errors.As(err, new(http1.Refused)) {
			t.Errorf("%.20q is passed on: %+v, %v", text, s, err)
		}
	}
}

// What is passed on names one host, and is passed on again as it is.
func FuzzRequests(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	f.Add("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		passed, hosts, err := readAll(text)
		if err != nil {
			return
		}
		again, hostsAgain, err := readAll(passed)
		if again != passed || err != nil || strings.Join(hosts, " ") != strings.Join(hostsAgain, " ") {
			t.Errorf("%q is passed on as %q, and that as %q, %v", text, passed, again, err)
		}
	})
}

func FuzzResponses(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := bufio.NewReader(strings.NewReader(text))
		s, err := http1.ReadResponse(r, "GET")
		if err != nil {
			return
		}
		got := string(s.Head)
		if body, _ := s.Body(r); body != nil {
			b, _ := io.ReadAll(body)
			got += string(b)
		}
		if !strings.HasPrefix(text, got) {
			t.Errorf("%q is passed on of %q", got, text)
		}
	})
}
