// Package dockerfile makes images from Dockerfiles. BuildKit's own packages read
// them; what they say is done by Lumina: RUN in a VM, everything else on the host,
// which no file of the build's is ever run on.
package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// MaxSize bounds a Dockerfile, in bytes.
const MaxSize = 4 << 20

// File is a Dockerfile.
type File struct {
	Name   string // how errors call it
	lines  []string
	escape rune
	meta   []instructions.ArgCommand
	stages []instructions.Stage
}

// Error is what is wrong with a line of a Dockerfile, or with what it did.
type Error struct {
	File string
	Line int // from 1; 0 when it is none in particular
	Err  error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Parse reads a Dockerfile; name is how errors call it.
func Parse(r io.Reader, name string) (*File, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > MaxSize {
		return nil, &Error{File: name, Err: fmt.Errorf("it is longer than %d bytes", MaxSize)}
	}
	if at := bytes.IndexByte(b, 0); at >= 0 {
		return nil, &Error{name, 1 + bytes.Count(b[:at], []byte("\n")), errors.New("it has a NUL byte")}
	}
	f := &File{Name: name, lines: strings.Split(string(b), "\n")}
	if syntax, _, where, ok := parser.DetectSyntax(b); ok && !ownSyntax(syntax) {
		return nil, &Error{name, lineOf(where), fmt.Errorf("syntax %q: Lumina reads the syntax of docker/dockerfile, and runs no other frontend", syntax)}
	}
	result, err := parser.Parse(bytes.NewReader(b))
	if err != nil {
		return nil, f.located(err)
	}
	f.escape = result.EscapeToken
	f.stages, f.meta, err = instructions.Parse(result.AST, linter.New(&linter.Config{}))
	if err != nil {
		return nil, f.located(err)
	}
	if len(f.stages) == 0 {
		return nil, &Error{File: name, Err: errNoFrom}
	}
	return f, nil
}

// ownSyntax says whether a frontend is the one whose syntax this package reads.
func ownSyntax(reference string) bool {
	reference = strings.TrimPrefix(reference, "docker.io/")
	image, _, _ := strings.Cut(reference, "@")
	image, _, _ = strings.Cut(image, ":")
	return image == "docker/dockerfile" || image == "docker/dockerfile-upstream"
}

// errNoFrom is the error of an instruction before the first FROM, too.
var errNoFrom = errors.New("it has no FROM: what is the image made from?")

// located finds the line that an error of the parser's is about.
func (f *File) located(err error) error {
	e := &Error{File: f.Name, Err: err}
	defer func() {
		if e.Err.Error() == "no build stage in current context" {
			e.Err = errNoFrom
		}
	}()
	var at *parser.LocationError
	if errors.As(err, &at) {
		for _, where := range at.Locations {
			if e.Line = lineOf(where); e.Line > 0 {
				break
			}
		}
		e.Err = at.Unwrap()
	}
	return e
}

func lineOf(where []parser.Range) int {
	if len(where) == 0 {
		return 0
	}
	return where[0].Start.Line
}

// Excerpt shows some lines as BuildKit does: what is between first and last is
// marked.
func (f *File) excerpt(first, last int) string {
	const around = 2
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n--------------------\n", f.Name, first)
	for n := max(1, first-around); n <= min(len(f.lines), last+around); n++ {
		mark := "   "
		if n >= first && n <= last {
			mark = ">>>"
		}
		fmt.Fprintf(&b, "%4d | %s %s\n", n, mark, strings.TrimRight(f.lines[n-1], "\r"))
	}
	b.WriteString("--------------------\n")
	return b.String()
}
