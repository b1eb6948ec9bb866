// Package lumina has what is passed on with Lumina's program. The program is
// cmd/lumina; the library for other programs is runtime.
package lumina

import _ "embed"

// Notices names the software of others that is in the program, with its licences.
// "make notices" makes it.
//
//go:embed THIRD_PARTY_NOTICES.md
var Notices string
