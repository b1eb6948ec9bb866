package http1

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
)

// maxResponseHead is how much of a response is read to know its end, in bytes.
const maxResponseHead = 1 << 20

// Response is the head of a response.
type Response struct {
	Status int // 0: it is not one of HTTP/1
	// Head is as it came.
	Head []byte

	chunked   bool
	length    int64
	unlimited bool // it goes on to the connection's end
}

// Interim says whether another response to the same request follows.
func (s *Response) Interim() bool { return s.Status/100 == 1 && s.Status != 101 }

// ReadResponse reads the head of a response to a request of method. What does not begin
// as one of HTTP/1 is [Refused].
func ReadResponse(r *bufio.Reader, method string) (*Response, error) {
	s := &Response{length: -1}
	first := true
	for {
		part, err := r.ReadSlice('\n')
		s.Head = append(s.Head, part...)
		if err == bufio.ErrBufferFull {
			if first && !begins(s.Head) {
				return nil, notAnswered
			}
			if len(s.Head) > maxResponseHead {
				return s.garbled(), nil
			}
			continue
		}
		if err != nil {
			if len(s.Head) > 0 && first && !begins(s.Head) {
				return nil, notAnswered
			}
			if len(s.Head) > 0 && err == io.EOF {
				return s.garbled(), nil // what came is passed on, and then its end
			}
			return nil, err
		}
		if len(s.Head) > maxResponseHead {
			return s.garbled(), nil
		}
		line := s.Head[bytes.LastIndexByte(s.Head[:len(s.Head)-1], '\n')+1:]
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if s.Status = parseStatus(string(line)); s.Status == 0 {
				return nil, notAnswered
			}
			first = false
			continue
		}
		if len(line) == 0 {
			break
		}
		s.field(string(line))
	}
	switch {
	case s.Status == 101, s.Interim(), method == "HEAD", s.Status == 204, s.Status == 304:
		s.chunked, s.unlimited, s.length = false, false, 0
	case s.unlimited || s.chunked:
	case s.length < 0:
		s.unlimited = true
	}
	return s, nil
}

const notAnswered = Refused("the server does not answer in HTTP/1")

// begins says whether it may be the beginning of a response, of which the rest is missing.
func begins(head []byte) bool {
	const version = "HTTP/1."
	n := min(len(head), len(version))
	return string(head[:n]) == version[:n]
}

// garbled makes it one whose end is the connection's.
func (s *Response) garbled() *Response {
	s.Status, s.chunked, s.unlimited = 0, false, true
	return s
}

func parseStatus(line string) int {
	version, rest, _ := strings.Cut(line, " ")
	if version != "HTTP/1.1" && version != "HTTP/1.0" || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return 0
	}
	n, err := strconv.ParseUint(rest[:3], 10, 16)
	if err != nil || n < 100 {
		return 0
	}
	return int(n)
}

func (s *Response) field(line string) {
	name, value, _ := strings.Cut(line, ":")
	f := field{strings.TrimRight(name, " \t"), strings.Trim(value, " \t")}
	switch {
	case f.is("Transfer-Encoding"):
		codings := strings.Split(f.value, ",")
		s.chunked = strings.EqualFold(strings.Trim(codings[len(codings)-1], " \t"), "chunked")
		s.unlimited = !s.chunked
	case f.is("Content-Length"):
		n, err := parseLength(f.value)
		if err != nil || s.length >= 0 && s.length != n {
			s.unlimited = true
		}
		s.length = n
	}
}

// Body is what follows the head, as it comes; nil for nothing. endless says that
// it ends with the connection.
func (s *Response) Body(r *bufio.Reader) (body io.Reader, endless bool) {
	switch {
	case s.unlimited:
		return r, true
	case s.chunked:
		return &chunks{r: r}, false
	case s.length > 0:
		return &exactly{r, s.length}, false
	}
	return nil, false
}
