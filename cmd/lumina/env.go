package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEnvFile bounds a file of variables, in bytes.
const maxEnvFile = 4 << 20

// variables are NAME=value of the files and then of the flags, whose values are
// NAME=value, or NAME for this process's own: one that is not set is left out, as
// docker does. Values of secrets so need not be in any process's arguments.
func variables(env *environment, flags, files []string) ([]string, error) {
	var all []string
	for _, name := range files {
		some, err := readEnvFile(env, name)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		all = append(all, some...)
	}
	for _, v := range flags {
		name, _, set := strings.Cut(v, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q is neither NAME=VALUE nor NAME", v)
		}
		if set {
			all = append(all, v)
		} else if value, ok := env.lookupEnv(name); ok {
			all = append(all, name+"="+value)
		}
	}
	return all, nil
}

// readEnvFile reads a file by docker's rules: NAME=value or NAME a line, # begins
// a line that is a comment, white space before a name does not count, and the
// value is what follows the =, quotes and all. A CR at a line's end is the line's.
func readEnvFile(env *environment, name string) ([]string, error) {
	text, err := env.readFile(name, maxEnvFile)
	if err != nil {
		return nil, err
	}
	var all []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxEnvFile)
	for n := 1; lines.Scan(); n++ {
		b := lines.Bytes()
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\xEF\xBB\xBF")) // as Windows begins a text
		}
		if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
			return nil, fmt.Errorf("%s:%d: it is not text in UTF-8", name, n)
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		variable, _, set := strings.Cut(line, "=")
		if !set {
			variable = strings.TrimSpace(variable)
		}
		if variable == "" || strings.ContainsFunc(variable, unicode.IsSpace) {
			return nil, fmt.Errorf("%s:%d: %q is not a variable's name", name, n, variable) // not the value, which may be secret
		}
		if set {
			all = append(all, line)
		} else if value, ok := env.lookupEnv(variable); ok {
			all = append(all, variable+"="+value)
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line is longer than %d bytes", maxEnvFile)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}
