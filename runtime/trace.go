package runtime

import (
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

// Mark is a moment of a boot.
type Mark struct {
	Name string
	At   time.Duration // since the start was asked for
}

// Trace says where the time of a boot went.
type Trace struct {
	Marks []Mark
	Cold  Cold
	start time.Time
}

func (t *Trace) mark(name string) {
	t.Marks = append(t.Marks, Mark{name, time.Since(t.start)})
}

// maxMarks and maxMarkName bound what is kept of a guest's marks, which a supervisor
// has as long as it lives.
const (
	maxMarks    = 64
	maxMarkName = 80
)

// booted adds the guest's marks. They are on the guest's clock, which began
// with its kernel: its last mark is taken to be now.
func (t *Trace) booted(guest []protocol.Mark) {
	now := time.Since(t.start)
	guest = guest[max(0, len(guest)-maxMarks):]
	for _, m := range guest {
		name := printable.Line(strings.Clone(m.Name[:min(len(m.Name), maxMarkName)]))
		t.Marks = append(t.Marks, Mark{"guest: " + name, now - (guest[len(guest)-1].At - m.At)})
	}
	t.Marks = append(t.Marks, Mark{"ready", now})
}
