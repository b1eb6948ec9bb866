//go:build linux

package network

import (
	"bytes"
	"crypto/tls"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mutator makes requests that a go-between and a server may read differently.
type mutator struct{ *mathrand.Rand }

func newMutator(seed int) mutator {
	return mutator{mathrand.New(mathrand.NewPCG(uint64(seed), 17))}
}

func (m mutator) one(list ...string) string { return list[m.IntN(len(list))] }

// mostly is the good one, three times of four.
func (m mutator) mostly(good string, odd ...string) string {
	if m.IntN(4) > 0 {
		return good
	}
	return m.one(odd...)
}

const evilRequest = "GET /?smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n"

func (m mutator) odd() string {
	return m.one("\x00", "\x01", "\t", "\n", "\v", "\f", "\r", "\x1b", " ", "\x7f", "\x80", "\x85", "\xa0", "\xff", "\r\n", ":", ",", ";", "@", "/", "#", "?", "\\", "%00", "%0d%0a")
}

func (m mutator) host() string {
	return m.one("listed.test", "listed.test", "LISTED.test:80", "listed.test.", "evil.test", "evil.test:80:listed.test", "listed.test@evil.test", "evil.test@listed.test",
		"listed.test, evil.test", "evil.test, listed.test", "listed.test evil.test", "evil.test\x00.listed.test", "listed.test\x00", "evil.test#listed.test",
		"evil.test/.listed.test", "listed.test:evil.test", "listed.test:80@evil.test", "[::1]", "127.0.0.1", "", "listed.test:", "listed.test:0", "listed.test:+80",
		"evil.test?x.listed.test", "listed.test\tevil.test", "\xfflisted.test", "listed.test\xff", "evil.test;listed.test", "evil.test.listed.test:80:80")
}

// headers are a Host and what goes wrong with it.
func (m mutator) headers() string {
	switch m.IntN(18) {
	case 0:
		return "Host: listed.test\r\nHost: evil.test\r\n"
	case 1:
		return "Host: evil.test\r\nHost: listed.test\r\n"
	case 2:
		return "Host:" + m.odd() + m.host() + "\r\n"
	case 3:
		return "Host" + m.odd() + ": " + m.host() + "\r\n" + m.one("", "Host: listed.test\r\n")
	case 4:
		return "Host: listed.test\r\n" + m.odd() + "Host: evil.test\r\n"
	case 5:
		return "X: y\r\n" + m.one(" ", "\t") + "Host: evil.test\r\nHost: listed.test\r\n"
	case 6:
		return "Host:\r\n " + m.host() + "\r\n"
	case 7:
		return "Host: listed.test" + m.one("\n", "\r", "\r\r\n", "\n\r") + "Host: evil.test\r\n"
	case 8:
		return "host: " + m.host() + "\r\nX-Host: evil.test\r\nConnection: " + m.one("host", "close, Host", "keep-alive") + "\r\n"
	}
	return "Host: " + m.mostly("listed.test", m.host()) + "\r\n"
}

// body is the rest of the head, and a body that may hide a request.
func (m mutator) body() string {
	size := strconv.Itoa(len(evilRequest))
	chunk := strconv.FormatInt(int64(len(evilRequest)), 16)
	encoding := m.mostly("chunked", "Chunked", " chunked", "\tchunked", "chunked ", "xchunked", "chunked, identity", "identity, chunked", "identity", "gzip, chunked", "chunked;q=1", "\"chunked\"",
		"chunk", "chunked\x00", "\x0bchunked", "chunked,", ",chunked", "chunked\r\n ")
	name := m.mostly("Transfer-Encoding", "transfer-encoding", "Transfer-Encoding ", " Transfer-Encoding", "Transfer_Encoding", "Transfer-Encoding\t", "X: y\nTransfer-Encoding", "\x00Transfer-Encoding")
	length := m.mostly(m.one("0", size), "+"+size, "-1", "0x10", " "+size, size+", "+size, "0, "+size, size+" ", "0"+size, "1e1", "", size+"\x00", "18446744073709551616", "5")
	end := m.mostly("0\r\n\r\n", "0\n\n", "00\r\n\r\n", "0;x\r\n\r\n", "0\r\nX: y\r\n\r\n", "0\r\nHost: evil.test\r\n\r\n", "0 \r\n\r\n", "0x0\r\n\r\n", "0\r\n")
	header := m.mostly(chunk, chunk+";a=b", chunk+" ", "0x"+chunk, "+"+chunk, strings.ToUpper(chunk), "00"+chunk, chunk+"\t", chunk+";\n", "-"+chunk, "1", chunk+"\r")
	switch m.IntN(9) {
	case 0:
		return "\r\n"
	case 1:
		return "Content-Length: " + length + "\r\n\r\n" + evilRequest
	case 2:
		return name + ": " + encoding + "\r\n\r\n" + end + evilRequest
	case 3:
		return name + ": " + encoding + "\r\nContent-Length: " + length + "\r\n\r\n" + end + evilRequest
	case 4:
		return "Content-Length: " + length + "\r\nContent-Length: " + m.one("0", size, length) + "\r\n\r\n" + evilRequest
	case 5:
		return "Transfer-Encoding: " + m.one("chunked", encoding) + "\r\n\r\n" + header + m.mostly("\r\n", "\n", "\r") + evilRequest + m.one("\r\n", "\n", "") + end + m.one("", evilRequest)
	case 6:
		return "Transfer-Encoding: chunked\r\nTransfer-Encoding: " + m.one("identity", "chunked", "x") + "\r\n\r\n" + end + evilRequest
	case 7:
		return "Connection: " + m.one("Upgrade", "upgrade, HTTP2-Settings", "Upgrade, close") + "\r\nUpgrade: " + m.one("websocket", "h2c", "TLS/1.0", "websocket, h2c", "HTTP/2.0") +
			"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" + m.one(evilRequest, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	return "Expect: 100-continue\r\nContent-Length: " + length + "\r\n\r\n" + evilRequest
}

// request is the seed's request, mutated.
func (m mutator) request() string {
	method := m.mostly(m.one("GET", "POST"), "PUT", "HEAD", "OPTIONS", "get", "Get", "XYZZY", "CONNECT", "TRACE", "PRI", "", "GET\x00", "G\xffT", "{}")
	target := m.mostly("/", "/\xff", "/\x00", "/\x01x", "*", "http://evil.test/", "http://listed.test/", "http://listed.test@evil.test/", "http://evil.test:80:listed.test/",
		"HTTP://evil.test/", "//evil.test/", "evil.test", "evil.test:80", "listed.test:80", "/ x", "/\t", "http:///x", "http://evil.test", "/%0d%0aHost:%20evil.test", "/?\x80", "https://evil.test/", "http://listed.test\\@evil.test/")
	version := m.mostly("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/1.2", "HTTP/01.1", "HTTP/1.1 ", "HTTP/1.1x", "", "HTTP/1.10", "\xff", "HTTP/1.\x00")
	gap := m.mostly(" ", "  ", "\t", "\v", "\r", "\xa0")
	text := method + gap + target + m.mostly(" ", gap) + version + m.mostly("\r\n", "\n", "\r", "\r\r\n") + m.headers() + m.body()
	if m.IntN(4) == 0 { // one that is whole comes first
		text = "GET /?first HTTP/1.1\r\nHost: listed.test\r\n\r\n" + text
	}
	if m.IntN(4) == 0 {
		text += evilRequest
	}
	if m.IntN(8) == 0 {
		text = m.one("\r\n", "\n", "\r\n\r\n", " ", "\x00", "\xef\xbb\xbf", "\t") + text
	}
	for range max(m.IntN(5)-2, 0) {
		at := m.IntN(len(text))
		switch m.IntN(3) {
		case 0:
			text = text[:at] + m.odd() + text[at:]
		case 1:
			text = text[:at] + text[at+1:]
		default:
			text = text[:at] + string([]byte{byte(m.IntN(256))}) + text[at+1:]
		}
	}
	if m.IntN(16) == 0 {
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	return text
}

// mutations is how many requests are tried.
func mutations(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("LUMINA_TEST_MUTATIONS")); err == nil {
		return n
	}
	if testing.Short() {
		return 600
	}
	return 10000
}

// captureHello is what a client says first, of a version in which the server's
// certificate can be read.
func captureHello(t testing.TB, name string) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() { _ = tls.Client(near, &tls.Config{ServerName: name, MaxVersion: tls.VersionTLS12}).Handshake() }()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	far.Close()
	return b[:n]
}

// inRecords is a hello in records of at most size bytes.
func inRecords(hello []byte, size int) (b []byte) {
	for part := range slices.Chunk(hello[recordHeader:], size) {
		b = append(b, recordHandshake, 3, 1, byte(len(part)>>8), byte(len(part)))
		b = append(b, part...)
	}
	return b
}

// padded is a hello to example.test with so many bytes of padding (RFC 7685) before the name.
func padded(t testing.TB, n int) []byte {
	padding := append([]byte{0, 21, byte(n >> 8), byte(n)}, make([]byte, n)...)
	return inRecords(withSNI(t, append(padding, sni([]byte("example.test"), 0)...)), 1<<14)
}

// hello is one of another form, or another content.
func (m mutator) hello(hello, evil []byte) []byte {
	if m.IntN(4) == 0 {
		hello = evil
	}
	b := bytes.Clone(hello)
	for range m.IntN(3) {
		switch name := bytes.Index(b, []byte("listed.test")); m.IntN(4) {
		case 0: // somewhere
			b[m.IntN(len(b))] = byte(m.IntN(256))
		case 1: // in what says how long something is
			if name > 9 {
				b[name-1-m.IntN(9)] ^= byte(1 << m.IntN(8))
			}
		case 2: // in the name
			if name > 0 {
				b[name+m.IntN(11)] = m.odd()[0]
			}
		case 3: // another name of the same length: the server's default answers
			if name > 0 {
				copy(b[name:], "listed.tes\x00")
			}
		}
	}
	if m.IntN(3) == 0 { // in several records, of whatever kind
		payload := b[recordHeader:]
		b = nil
		for len(payload) > 0 {
			size := min(1+m.IntN(120), len(payload))
			kind := byte(recordHandshake)
			if m.IntN(40) == 0 {
				kind = byte(20 + m.IntN(4))
			}
			b = append(b, kind, 3, byte(m.IntN(4)), 0, byte(size))
			b, payload = append(b, payload[:size]...), payload[size:]
		}
	}
	return b
}
