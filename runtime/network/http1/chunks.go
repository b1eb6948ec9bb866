package http1

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
)

// chunks reads a body in chunks as it is, to its end. A strict one takes only what
// has but one meaning: no extensions, and a trailer of valid fields that say nothing
// of the message itself.
type chunks struct {
	r       *bufio.Reader
	strict  bool
	state   chunkState
	left    int64  // data of the chunk that is still to come
	out     []byte // what is still to be given of the framing
	trailer int    // its bytes
}

type chunkState int

const (
	chunkSize chunkState = iota
	chunkData
	chunkDataEnd
	chunkTrailer
	chunkOver
)

const (
	badChunk   = Refused("a chunk of the request is not valid")
	badTrailer = Refused("the trailer of the request is not valid")
)

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		switch c.state {
		case chunkOver:
			return 0, io.EOF
		case chunkData:
			n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
			if c.left -= int64(n); c.left == 0 {
				c.state = chunkDataEnd
			}
			return n, noEOF(err)
		default:
			line, err := c.r.ReadSlice('\n')
			if err == bufio.ErrBufferFull {
				err = badChunk
			}
			if err == nil {
				err = c.take(line)
			}
			if err != nil {
				return 0, noEOF(err)
			}
			c.out = line
		}
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// take goes on by a line of the framing.
func (c *chunks) take(line []byte) error {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		if c.strict {
			return badChunk
		}
		text = bytes.TrimSuffix(line, []byte("\n"))
	}
	switch c.state {
	case chunkSize:
		digits := string(text)
		if !c.strict {
			digits, _, _ = strings.Cut(digits, ";")
			digits = strings.Trim(digits, " \t")
		}
		if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
			return badChunk
		}
		c.left, _ = strconv.ParseInt(digits, 16, 64)
		if c.state = chunkData; c.left == 0 {
			c.state = chunkTrailer
		}
	case chunkDataEnd:
		if len(text) > 0 {
			return badChunk
		}
		c.state = chunkSize
	case chunkTrailer:
		if len(text) == 0 {
			c.state = chunkOver
			return nil
		}
		if c.trailer += len(line); c.trailer > MaxHead {
			return badTrailer
		}
		if !c.strict {
			return nil
		}
		f, err := parseField(string(text))
		if err != nil {
			return err
		}
		for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "TE"} {
			if f.is(name) {
				return badTrailer
			}
		}
	}
	return nil
}
