package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
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

// pathError leaves the name of the system call out, and that which a file had
// before it was whole.
func pathError(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	if errors.As(err, &l) {
		return fmt.Errorf("%s: %w", printable(l.New), l.Err)
	}
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", printable(p.Path), p.Err)
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
