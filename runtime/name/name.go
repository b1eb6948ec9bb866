// Package name says what images and volumes may be called: names that are
// file names everywhere and need no quotes in a shell.
package name

import "fmt"

// MaxLength of a name, in bytes.
const MaxLength = 128

// Check returns an error when name is none; what is the thing's kind, for the
// message.
func Check(what, name string) error {
	ok := name != "" && len(name) <= MaxLength
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		ok = ok && (alphanumeric || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("%s name %q: want lower-case letters, digits, '.', '_' and '-', at most %d, beginning with a letter or digit", what, name, MaxLength)
	}
	return nil
}
