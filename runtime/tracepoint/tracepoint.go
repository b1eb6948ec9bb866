// Package tracepoint counts what the kernel does for programs: how often they, and
// every program that they start, come by a tracepoint of its or another event.
package tracepoint

import "errors"

// Events that are no tracepoints.
const (
	PageFaults      = "page-faults"
	ContextSwitches = "context-switches"
)

// ErrNone is wrapped when the kernel has no such tracepoint.
var ErrNone = errors.New("this kernel has no such tracepoint")
