// Package printable makes text of others safe to print: what a guest, an image, a
// network peer or a registry sent. Its control characters, escape sequences, line
// breaks, bidirectional controls and broken UTF-8 become visible escapes, as in a Go
// string: they change neither the terminal nor the reading of the text around them.
//
// Everything that is not Lumina's own passes through here before a terminal or an
// error text has it. The output of the user's own command does not: it is theirs.
// JSON keeps every byte; [JSON] only changes how it is spelled.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line returns s on one line.
func Line(s string) string { return escape(s, false) }

// Lines returns s with its line breaks and tabs, for a text whose line breaks are
// Lumina's own, or that is shown apart from other text.
func Lines(s string) string { return escape(strings.ReplaceAll(s, "\r\n", "\n"), true) }

func escape(s string, lines bool) string {
	first := 0
	for first < len(s) {
		r, size := utf8.DecodeRuneInString(s[first:])
		if !safe(r, size, lines) {
			break
		}
		first += size
	}
	if first == len(s) {
		return s
	}
	b := make([]byte, first, len(s)+16)
	copy(b, s)
	for i := first; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case safe(r, size, lines):
			b = append(b, s[i:i+size]...)
		case r == utf8.RuneError && size == 1:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'x', digits[s[i]>>4], digits[s[i]&15])
		default:
			quoted := strconv.AppendQuoteRuneToASCII(nil, r)
			b = append(b, quoted[1:len(quoted)-1]...)
		}
		i += size
	}
	return string(b)
}

// safe says whether a character is shown, and changes nothing else. What Unicode
// calls format characters may: bidirectional controls are among them.
func safe(r rune, size int, lines bool) bool {
	switch {
	case r >= ' ' && r < 0x7f:
		return true
	case r == '\n' || r == '\t':
		return lines
	case r == utf8.RuneError && size <= 1:
		return false
	}
	return unicode.IsGraphic(r)
}

// JSON returns an encoded JSON text that means the same and has no character that
// a terminal might act on.
func JSON(b []byte) []byte {
	done := 0
	var out []byte
	for i := 0; i < len(b); {
		if b[i] < 0x7f { // the encoder has escaped the control characters
			i++
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if !Acts(r) {
			i += size
			continue
		}
		out = append(out, b[done:i]...)
		out = append(out, EscapeJSON(r)...)
		i += size
		done = i
	}
	if done == 0 {
		return b
	}
	return append(out, b[done:]...)
}

// EscapeJSON spells a character as a JSON string may have it anywhere (RFC 8259,
// section 7).
func EscapeJSON(r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(nil, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(nil, `\u%04x`, r)
}

// Acts says whether a terminal might act on a character in place of showing it.
func Acts(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r > 0xa0 && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Error returns an error whose text is err's on one line, and that wraps it.
func Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if line := Line(text); line != text {
		return &printableError{line, err}
	}
	return err
}

type printableError struct {
	text string
	err  error
}

func (e *printableError) Error() string { return e.text }
func (e *printableError) Unwrap() error { return e.err }
