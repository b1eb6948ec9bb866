package strictyaml

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var location = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?`) })

// phrases are what the parser says and what it means. Those of its grammar count lines
// from 0.
var phrases = []struct {
	parser, plain string
	fromZero      bool
}{
	{"mapping values are not allowed", `a ": " or an indentation where none can be; text that has ": " in it goes into quotes`, false},
	{"did not find expected ',' or ']'", "the list that begins with [ here has no ], or an item has no , after it", true},
	{"did not find expected ',' or '}'", "what begins with { here has no }, or a field has no , after it", true},
	{"did not find expected key", "this line is no field of what is above it: look at its indentation, its colon and its quotes", true},
	{"did not find expected '-' indicator", "this line is no item of the list above it: look at its indentation and its -", true},
	{"could not find expected ':'", `a field needs ": " after its name`, false},
	{"found unexpected end of stream", "a quote that begins here is not closed", false},
	{"found unknown escape character", `\ in double quotes begins an escape, and this is none; in single quotes \ is itself`, false},
	{"block sequence entries are not allowed", "a list of lines that begin with - begins on the line after its field", false},
	{"found a tab character", "a tab is in the indentation; YAML takes spaces", false},
	{"found character that cannot start any token", "a value cannot begin with this character (such as @, % or `) without quotes", false},
	{"did not find expected comment or line break", "behind > and | there is no text; it begins on the next line", false},
	{"did not find expected <document start>", "there is text after the document's end", true},
	{"found incompatible YAML document", "%YAML asks for another version than 1.1 or 1.2", false},
	{"exceeded max depth", "lists and fields are within each other too deep", false},
	{"document contains excessive aliasing", "the aliases stand for too many values", false},
}

// syntaxError turns an error of the parser into plain words, and finds its line.
func syntaxError(text []byte, err error) error {
	said, _, _ := strings.Cut(err.Error(), "\n")
	m := location().FindStringSubmatch(said)
	line := 0
	if m != nil {
		line, _ = strconv.Atoi(m[1])
		said = said[len(m[0]):]
	}
	if n := badByte(text); n >= 0 {
		what := "a control character; write it as an escape in double quotes"
		if c, size := utf8.DecodeRune(text[n:]); c == utf8.RuneError && size < 2 {
			what = "it is not UTF-8"
		}
		if strings.Contains(said, "control characters") || strings.Contains(said, "UTF-8") {
			return &Error{1 + bytes.Count(text[:n], []byte("\n")), what}
		}
	}
	if name, ok := strings.CutPrefix(said, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		before, _, _ := bytes.Cut(text, []byte("*"+name))
		return &Error{1 + bytes.Count(before, []byte("\n")), fmt.Sprintf("*%s refers to &%s, which does not exist; put text that begins with * in quotes", name, name)}
	}
	for _, p := range phrases {
		if !strings.Contains(said, p.parser) {
			continue
		}
		if p.fromZero {
			line++
		}
		line = max(line, 1)
		if strings.Contains(p.parser, "key") || strings.Contains(p.parser, "indicator") {
			line = firstOf(text, line, p.parser)
		}
		if open, _, is := strings.Cut(p.parser, "' or '"); is {
			// The line of the bracket, or where the text ends when that is the first.
			bracket := map[string]string{"]": "[", "}": "{"}[strings.Trim(p.parser[len(open)+6:], "'")]
			if !bytes.Contains(lineAt(text, line), []byte(bracket)) {
				line = 1
			}
		}
		// For a tab, the parser names the line before it.
		for n := line; n <= line+1; n++ {
			if indent := lineAt(text, n); bytes.IndexByte(indent[:len(indent)-len(bytes.TrimLeft(indent, " \t"))], '\t') >= 0 {
				return &Error{n, "a tab is in the indentation; YAML takes spaces"}
			}
		}
		return &Error{line, p.plain}
	}
	return &Error{max(line, 1), "it is not YAML: " + said}
}

// firstOf is the first line, from the given one on, with which the text has an error:
// the parser gives the line where the list or the fields begin that it is in.
func firstOf(text []byte, line int, said string) int {
	const mostBytes, mostLines = 64 << 10, 1000 // each line is a parse
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(text) > mostBytes || len(lines) > mostLines {
		return line
	}
	for n := line; n <= len(lines); n++ {
		var doc yaml.Node
		if err := yaml.Unmarshal(bytes.Join(lines[:n], nil), &doc); err != nil && strings.Contains(err.Error(), said) {
			return n
		}
	}
	return line
}

// lineAt is a line, from 1 on.
func lineAt(text []byte, line int) []byte {
	for range line - 1 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	one, _, _ := bytes.Cut(text, []byte("\n"))
	return one
}

// badByte is where the first byte is that YAML does not take, or -1.
func badByte(text []byte) int {
	for n := 0; n < len(text); {
		c, size := utf8.DecodeRune(text[n:])
		if c == utf8.RuneError && size < 2 || c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
			return n
		}
		n += size
	}
	return -1
}
