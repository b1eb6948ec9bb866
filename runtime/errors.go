package runtime

import (
	"errors"
	"fmt"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/printable"
)

// ErrorKind is why a command has no exit code. The values are part of the CLI
// contract.
type ErrorKind string

// The kinds of errors.
const (
	// Timeout: the command ran longer than it was allowed to.
	Timeout ErrorKind = "timeout"
	// VMCrashed: the VM ended under the command.
	VMCrashed ErrorKind = "vm_crashed"
	// SessionDisconnected: the session's supervisor went away under the command.
	SessionDisconnected ErrorKind = "session_disconnected"
	// ConnectionFailed: the command never ran.
	ConnectionFailed ErrorKind = "connection_failed"
)

// Error is a command that has no exit code.
type Error struct {
	Kind ErrorKind
	Err  error
	// Console is the end of what the guest's kernel and init printed, where
	// that may tell why.
	Console string
}

func (e *Error) Error() string {
	if lines := printable.Lines(lastLines(sincePanic(e.Console), 12)); lines != "" {
		return fmt.Sprintf("%v; the guest's console ends with:\n%s", e.Err, lines)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// kindOf returns err as an Error, of the given kind unless it is one already.
func kindOf(kind ErrorKind, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Kind: kind, Err: err}
}

// sincePanic is what a kernel that panicked says why, without the trace of its
// functions that follows; the whole console of another.
func sincePanic(console string) string {
	if at := strings.LastIndex(console, "Kernel panic - not syncing"); at >= 0 {
		for _, heading := range []string{"Call Trace:", "Call trace:"} { // of amd64, of arm64
			if trace := strings.Index(console[at:], heading); trace >= 0 {
				return console[:at+trace]
			}
		}
	}
	return console
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-n):], "\n"))
}
