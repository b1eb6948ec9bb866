package runtime

import (
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// What a guest says of its boot is printed and kept: it is short, and moves no cursor.
func TestMarksOfAHostileGuest(t *testing.T) {
	marks := make([]protocol.Mark, 100000)
	for i := range marks {
		marks[i].Name = "\x1b[2J\n" + strings.Repeat("x", 10000)
	}
	var trace Trace
	trace.booted(marks)
	if len(trace.Marks) > maxMarks+1 {
		t.Errorf("%d marks are kept", len(trace.Marks))
	}
	for _, m := range trace.Marks {
		if len(m.Name) > 200 || strings.ContainsAny(m.Name, "\x1b\n") {
			t.Fatalf("the name %.80q, of %d bytes, is kept", m.Name, len(m.Name))
		}
	}
	trace.booted(nil)
}
