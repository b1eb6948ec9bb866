package runtime

import (
	"errors"
	"strings"
	"testing"
)

// A panic's reason is told, not the functions that were on the stack.
func TestErrorTellsWhyTheKernelPanicked(t *testing.T) {
	console := "Run /init as init process\nKernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\nCPU: 0 PID: 1\nCall Trace:\n" +
		strings.Repeat(" <TASK>\n ? panic+0x2e6/0x300\n", 10)
	got := (&Error{Kind: VMCrashed, Err: errors.New("the VM ended"), Console: console}).Error()
	if !strings.Contains(got, "Attempted to kill init") || strings.Contains(got, "<TASK>") {
		t.Errorf("%s", got)
	}
	if got := (&Error{Err: errors.New("x"), Console: "Call Trace:\nhello"}).Error(); !strings.Contains(got, "hello") {
		t.Errorf("%s", got)
	}
}
