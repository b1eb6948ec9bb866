// Package http1 reads HTTP/1 (RFC 9112) for a go-between that has to know what the
// server will take each request for. Of requests it takes what all servers read
// alike, and nothing else; what it gives on is written anew. Of responses it takes
// what servers send.
package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// MaxHead is how long the head of a request may be, in bytes.
const MaxHead = 64 << 10

// Refused is why a request is not taken.
type Refused string

func (r Refused) Error() string { return string(r) }

// Request is the head of a request.
type Request struct {
	Method string
	// Host is the one host that it names, in lower case, and Port its port, 0 for
	// none.
	Host string
	Port uint16
	// WebSocket is set if the connection is to become one.
	WebSocket bool
	// Head is the request as the server gets it.
	Head []byte

	length  int64
	chunked bool
	old     bool // HTTP/1.0
}

// ReadRequest reads the next request. The error is io.EOF where there is none, and
// a Refused where it is not to be passed on.
func ReadRequest(r *bufio.Reader) (*Request, error) {
	if err := peekMethod(r); err != nil {
		return nil, err
	}
	room := MaxHead
	line, err := readLine(r, &room)
	if err != nil {
		return nil, err
	}
	q, target, err := parseRequestLine(line)
	if err != nil {
		return nil, err
	}
	var fields []field
	for {
		if line, err = readLine(r, &room); err != nil {
			return nil, err
		}
		if line == "" {
			break
		}
		f, err := parseField(line)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	if fields, err = q.read(fields); err != nil {
		return nil, err
	}
	if target, err = q.origin(target); err != nil {
		return nil, err
	}
	q.Head = q.write(target, fields)
	return q, nil
}

const notHTTP = Refused("what the guest says is neither TLS nor an HTTP request")

// peekMethod looks at the method, as soon as it comes: who speaks another protocol
// is not waited for to end a line.
func peekMethod(r *bufio.Reader) error {
	const longest = 32
	for n := 1; n <= longest; n++ {
		b, err := r.Peek(n)
		if err != nil {
			if n > 1 {
				err = noEOF(err)
			}
			return err
		}
		switch c := b[n-1]; {
		case 'A' <= c && c <= 'Z', n > 1 && ('0' <= c && c <= '9' || c == '-' || c == '_'):
		case n > 1 && c == ' ':
			return nil
		default:
			return notHTTP
		}
	}
	return notHTTP
}

// readLine reads a line that ends with CR LF, and returns it without.
func readLine(r *bufio.Reader, room *int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if *room -= len(part); *room < 0 {
			return "", Refused("the head of the request is too long")
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return "", noEOF(err)
		}
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return "", Refused("a line of the request does not end with CR LF")
	}
	return string(text), nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// methods are those of IANA's registry of HTTP methods, but for CONNECT and PRI, with which
// a connection becomes another; and PURGE, of caches. Other words may be commands of
// another protocol.
var methods = func() map[string]bool {
	known := map[string]bool{}
	for _, m := range strings.Fields(`ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY DELETE GET HEAD LABEL LINK LOCK MERGE
		MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PURGE PUT
		QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL`) {
		known[m] = true
	}
	return known
}()

func parseRequestLine(line string) (q *Request, target string, err error) {
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	switch {
	case version != "HTTP/1.1" && version != "HTTP/1.0":
		return nil, "", Refused("the request is not of HTTP/1.1 or HTTP/1.0")
	case !methods[method]:
		return nil, "", Refused("the method " + method + " is not allowed")
	case target == "" || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' || c == '\\' }):
		return nil, "", Refused("the target of the request has bytes that are not allowed there")
	}
	return &Request{Method: method, old: version == "HTTP/1.0"}, target, nil
}

// field is a field of a head or a trailer.
type field struct{ name, value string }

func (f field) is(name string) bool { return strings.EqualFold(f.name, name) }

func parseField(line string) (field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsFunc(name, notToken) {
		return field{}, Refused("a field of the request has no valid name") // nor may it go on in the next line
	}
	value = strings.Trim(value, " \t")
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return field{}, Refused("a field of the request has control characters")
		}
	}
	return field{name, value}, nil
}

func notToken(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", c))
}

// read takes from the fields what says how the request is to be read and whom it is
// for, and returns those that are passed on.
func (q *Request) read(fields []field) ([]field, error) {
	var hosts, lengths, encodings, upgrades int
	var upgrade string
	connection := map[string]bool{}
	for _, f := range fields {
		var err error
		switch {
		case f.is("Host"):
			hosts++
			q.Host, q.Port, err = parseHost(f.value)
		case f.is("Content-Length"):
			lengths++
			q.length, err = parseLength(f.value)
		case f.is("Transfer-Encoding"):
			encodings++
			if q.chunked = strings.EqualFold(f.value, "chunked"); !q.chunked || q.old {
				err = Refused("the transfer encoding of the request is not chunked")
			}
		case f.is("Connection"):
			for option := range strings.SplitSeq(f.value, ",") {
				connection[strings.ToLower(strings.Trim(option, " \t"))] = true
			}
		case f.is("Upgrade"):
			upgrades++
			upgrade = f.value
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case hosts == 0:
		return nil, Refused("the guest did not say which host it wants")
	case hosts > 1:
		return nil, Refused("the request names more than one host")
	case lengths > 1 || encodings > 1 || lengths+encodings > 1:
		return nil, Refused("the request says more than once how long it is")
	case connection["host"] || connection["content-length"] || connection["transfer-encoding"]:
		return nil, Refused("the request has the next server drop what says whom it is for")
	}
	q.WebSocket = upgrades == 1 && strings.EqualFold(upgrade, "websocket") && connection["upgrade"] &&
		q.Method == "GET" && !q.old && !q.chunked && q.length == 0
	if q.WebSocket {
		return fields, nil
	}
	// A go-between does not pass on what it cannot follow, HTTP/2 for one, in which
	// each request names its host.
	var kept []field
	for _, f := range fields {
		switch {
		case f.is("Upgrade"), f.is("HTTP2-Settings"):
			continue
		case f.is("Connection"):
			var options []string
			for option := range strings.SplitSeq(f.value, ",") {
				if option = strings.Trim(option, " \t"); option != "" && !strings.EqualFold(option, "upgrade") && !strings.EqualFold(option, "http2-settings") {
					options = append(options, option)
				}
			}
			if len(options) == 0 {
				continue
			}
			f.value = strings.Join(options, ", ")
		}
		kept = append(kept, f)
	}
	return kept, nil
}

// parseHost splits NAME or NAME:PORT. Whether NAME is one is for others to say.
func parseHost(s string) (name string, port uint16, err error) {
	name, digits, hasPort := strings.Cut(s, ":")
	if hasPort {
		n, e := strconv.ParseUint(digits, 10, 16)
		if e != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
			return "", 0, Refused("the request names a host with a port that is none")
		}
		port = uint16(n)
	}
	if name == "" {
		return "", 0, Refused("the guest did not say which host it wants")
	}
	return strings.ToLower(name), port, nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, Refused("the length of the request is not a number")
	}
	return strconv.ParseInt(s, 10, 64)
}

// origin makes a target one that names no host.
func (q *Request) origin(target string) (string, error) {
	if target[0] == '/' || target == "*" && q.Method == "OPTIONS" {
		return target, nil
	}
	const scheme = "http://"
	if len(target) < len(scheme) || !strings.EqualFold(target[:len(scheme)], scheme) {
		return "", Refused("the target of the request is neither a path nor an http URL")
	}
	authority := target[len(scheme):]
	path := ""
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority, path = authority[:i], authority[i:]
	}
	host, port, err := parseHost(authority)
	if err != nil {
		return "", err
	}
	if host != q.Host || port != q.Port && port != 0 && q.Port != 0 {
		return "", Refused("the target of the request and its Host differ")
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return path, nil
}

func (q *Request) write(target string, fields []field) []byte {
	var b bytes.Buffer
	version := "HTTP/1.1"
	if q.old {
		version = "HTTP/1.0"
	}
	b.WriteString(q.Method + " " + target + " " + version + "\r\n")
	for _, f := range fields {
		if f.is("Host") {
			f.value = q.Host
			if q.Port != 0 && q.Port != 80 {
				f.value += ":" + strconv.Itoa(int(q.Port))
			}
		}
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// Body is what follows the head, as it is passed on; nil for nothing.
func (q *Request) Body(r *bufio.Reader) io.Reader {
	switch {
	case q.chunked:
		return &chunks{r: r, strict: true}
	case q.length > 0:
		return &exactly{r, q.length}
	}
	return nil
}

// exactly reads as many bytes as were announced.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); e.left == 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, noEOF(err)
}
