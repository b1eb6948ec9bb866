package runtime

import (
	"errors"
	"fmt"
	"regexp"
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

// sincePanic is what a kernel that panicked says why: where it went wrong, without
// registers, and the panic, without the trace of its functions that follows. It is the
// whole console of another.
func sincePanic(console string) string {
	at := strings.LastIndex(console, "Kernel panic - not syncing")
	if at < 0 {
		return console
	}
	at = strings.LastIndexByte(console[:at], '\n') + 1
	panics := console[at:]
	for _, heading := range []string{"Call Trace:", "Call trace:"} { // of amd64, of arm64
		if trace := strings.Index(panics, heading); trace >= 0 {
			panics = panics[:trace]
			break
		}
	}
	if fault := firstFault(console[:at]); fault != "" {
		return fault + panics
	}
	return console[:at] + panics
}

// faultLines is how many lines a kernel's fault has at most until it says where it was.
const faultLines = 8

// fault is the line with which a kernel begins to tell a fault, with its time or without.
var fault = regexp.MustCompile(`(?m)^(\[[ 0-9.]+\] )?(BUG: |Oops: |PANIC: |general protection fault|Internal error: |Unable to handle kernel )`)

// firstFault are the lines with which a kernel tells its first fault, the last of them
// where it was; "" for none.
func firstFault(console string) string {
	at := fault.FindStringIndex(console)
	if at == nil {
		return ""
	}
	var told strings.Builder
	lines := 0
	for line := range strings.Lines(console[at[0]:]) {
		told.WriteString(line)
		if lines++; lines == faultLines || strings.Contains(line, "RIP: ") || strings.Contains(line, "pc : ") {
			break
		}
	}
	return told.String()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-n):], "\n"))
}
