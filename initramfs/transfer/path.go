package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// IsContent says whether a source is written as what a directory holds: SRC/, SRC/.,
// "." and what ends in "..", which names no directory, either.
func IsContent(source string) bool {
	return isDirPath(source)
}

// BaseName is the name under which a source, an absolute path, is copied into a
// directory.
func BaseName(source string) string {
	if base := path.Base(path.Clean(source)); base != "/" {
		return base
	}
	return "root" // the file system's root has no name
}

// printable is a name that the sender chose, for an error text: what could move
// the cursor of a terminal, or be taken for another line, is escaped.
func printable(name string) string {
	const most = 256
	rest := ""
	if len(name) > most {
		name, rest = name[:most], "…"
		for !utf8.ValidString(name) && len(name) > most-utf8.UTFMax {
			name = name[:len(name)-1]
		}
	}
	for _, c := range name {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return strconv.Quote(name) + rest
		}
	}
	return name + rest
}

// fileError is what is wrong with a file. Its path is the one that somebody wrote, or
// begins with that.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string { return printable(e.path) + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

// named says which file an error is about, once: what the other side says of its own
// files stays, and so does the end of the stream.
func named(path string, err error) error {
	var file *fileError
	var theirs *protocol.Error
	if err == nil || errors.As(err, &file) || errors.As(err, &theirs) || Broken(err) {
		return err
	}
	return &fileError{path, err}
}

// cause leaves out of an error what the system call was, and the name that it was called
// with: that may be one which a file has until it is whole.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &l):
		return l.Err
	case errors.As(err, &p):
		return p.Err
	}
	return err
}

// isDirPath says whether a path can only be that of a directory.
func isDirPath(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..") || p == "." || p == ".."
}

// baseOf is the base name of a source on this system.
func baseOf(source string) (string, error) {
	absolute, err := filepath.Abs(source)
	return BaseName(filepath.ToSlash(absolute)), err
}
