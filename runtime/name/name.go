// Package name says what images, volumes and desktops may be called: names that
// are file names everywhere and need no quotes in a shell.
package name

import (
	"crypto/rand"
	"fmt"
)

// MaxLength of a name, in bytes.
const MaxLength = 128

// Check returns an error when name is none; what is the thing's kind, for the
// message.
func Check(what, name string) error {
	ok := name != "" && len(name) <= MaxLength
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alphanumeric || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("%s name %q: want letters, digits, '.', '_' and '-', at most %d, beginning with a letter or digit", what, name, MaxLength)
	}
	return nil
}

// UUID makes a random identifier, version 4 of RFC 9562.
func UUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
