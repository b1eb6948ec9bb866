package runtime

import (
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
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

// booted adds the guest's marks. They are on the guest's clock, which began
// with its kernel: its last mark is taken to be now.
func (t *Trace) booted(guest []protocol.Mark) {
	now := time.Since(t.start)
	for _, m := range guest {
		t.Marks = append(t.Marks, Mark{"guest: " + m.Name, now - (guest[len(guest)-1].At - m.At)})
	}
	t.Marks = append(t.Marks, Mark{"ready", now})
}
