package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/runtime/client"
)

// A host that sleeps stops its guests' clocks, and only lumina can correct them: a guest
// has no network time, and its hypervisor may have no clock for it
// (lima-vm/lima#2905, smol-machines/smolvm#521). This host sees it at its own: one that
// runs while it sleeps, and one that does not.

// reading is what this host's clocks say.
type reading struct {
	wall time.Time     // without the monotonic clock
	ran  time.Duration // that this host was awake
}

// hostClock notices that this host has slept, or that its clock was set.
type hostClock struct {
	read func() reading
	mu   sync.Mutex
	last reading // when the guest's clock was set
}

func newHostClock() *hostClock {
	begin := time.Now()
	c := &hostClock{read: func() reading {
		now := time.Now()
		return reading{wall: now.Round(0), ran: now.Sub(begin)}
	}}
	c.last = c.read()
	return c
}

// jump is by how much a guest's clock may be wrong.
const jump = time.Second

// jumped says whether a guest's clock is to be set, once for each jump.
func (c *hostClock) jumped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	if (now.wall.Sub(c.last.wall) - (now.ran - c.last.ran)).Abs() < jump {
		return false
	}
	c.last = now
	return true
}

// How often this host's clock is checked while no guest is asked for anything, and
// how long a guest may take to set its own.
const (
	clockPeriod   = time.Minute
	clockPatience = 2 * time.Second
)

// keepTime sets the guest's clock right while it is left alone.
func (v *VM) keepTime() {
	ticker := time.NewTicker(clockPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			v.setClock(context.Background())
		case <-v.machine.Done():
			return
		}
	}
}

// setClock sets the guest's clock if this host's has jumped. A guest that does not is
// none that could not be used: it may be of an older image, or busy with its end.
func (v *VM) setClock(ctx context.Context) {
	if !v.clock.jumped() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	if conn, err := v.machine.Dial(ctx); err == nil {
		_ = client.SetClock(ctx, conn)
	}
}
