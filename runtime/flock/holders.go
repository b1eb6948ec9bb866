//go:build unix

package flock

import (
	"fmt"
	"strings"
)

// HeldError is that others have locked what keeps a thing of a name, such as an image.
type HeldError struct {
	Kind, Name string
	PIDs       []int // of those who hold it; none when the system does not tell
}

func (h *HeldError) Error() string {
	if len(h.PIDs) == 0 {
		return "another process"
	}
	return "process " + strings.Trim(strings.ReplaceAll(fmt.Sprint(h.PIDs), " ", ", "), "[]")
}
