// Package licences has the licences of what is in Lumina's program and is not
// Lumina's own. The text is made by make build, from the modules themselves, and is
// not a part of the repository.
package licences

import (
	"embed"
	"errors"
)

// all:out has the file that "go run ./release/notices" printed, or none.
//
//go:embed all:out
var out embed.FS

// ErrNotBuilt is returned by Notices in a program that was built without them.
var ErrNotBuilt = errors.New("this build of lumina has no third-party notices; run make build")

// Notices names the software of others that is in the program, with its licences, in
// Markdown.
func Notices() (string, error) {
	text, err := out.ReadFile("out/THIRD_PARTY_NOTICES.md")
	if err != nil {
		return "", ErrNotBuilt
	}
	return string(text), nil
}
