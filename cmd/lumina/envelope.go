package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/abdul-abdi/lumina/runtime/printable"
)

// maxCapture bounds what JSON output keeps of each stream, in bytes: a guest
// may print without end.
const maxCapture = 128 << 20

// capture keeps the beginning of a stream.
type capture struct {
	buf       []byte
	most      int // bytes; maxCapture when 0
	truncated bool
}

func (c *capture) Write(p []byte) (int, error) {
	n := min(len(p), cmp.Or(c.most, maxCapture)-len(c.buf))
	c.buf = append(c.buf, p[:n]...)
	c.truncated = c.truncated || n < len(p)
	return len(p), nil
}

// envelope is a JSON object that is written as it is made: what a guest printed
// can be large, and several times so in JSON.
type envelope []field

// field is a member of an envelope. A value of type *capture is text, one of
// type rawBytes base64.
type field struct {
	name  string
	value any
}

type rawBytes struct{ *capture }

// print writes e on one line.
func (e envelope) print(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	separator := byte('{')
	for _, f := range e {
		w.WriteByte(separator)
		separator = ','
		fmt.Fprintf(w, "%q:", f.name)
		switch v := f.value.(type) {
		case *capture:
			writeText(w, v.buf)
		case rawBytes:
			w.WriteByte('"')
			encoder := base64.NewEncoder(base64.StdEncoding, w)
			_, _ = encoder.Write(v.buf)
			encoder.Close()
			w.WriteByte('"')
		default:
			var b bytes.Buffer
			if err := printJSON(&b, v); err != nil {
				return err
			}
			w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
		}
	}
	w.WriteString("}\n")
	// The writer remembers what failed before.
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// writeText writes a JSON string (RFC 8259). What is not UTF-8 in b becomes
// U+FFFD, once for each run of such bytes.
func writeText(w *bufio.Writer, b []byte) {
	w.WriteByte('"')
	done := 0
	for i := 0; i < len(b); {
		c, size := rune(b[i]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(b[i:])
		}
		if c >= ' ' && c != '"' && c != '\\' && (c != utf8.RuneError || size > 1) && (c < 0x7f || !printable.Acts(c)) {
			i += size
			continue
		}
		w.Write(b[done:i])
		switch c {
		case '"', '\\':
			w.WriteByte('\\')
			w.WriteByte(byte(c))
		case '\n':
			w.WriteString(`\n`)
		case '\r':
			w.WriteString(`\r`)
		case '\t':
			w.WriteString(`\t`)
		case utf8.RuneError:
			w.WriteRune(c)
			for i+size < len(b) {
				if next, n := utf8.DecodeRune(b[i+size:]); next != utf8.RuneError || n > 1 {
					break
				}
				size++
			}
		default:
			w.Write(printable.EscapeJSON(c))
		}
		i += size
		done = i
	}
	w.Write(b[done:])
	w.WriteByte('"')
}
