package vmtest

import (
	"errors"
	"io"
	"math"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Init is the init of a guest that is none: the agent's commands run on this host.
type Init struct {
	Off   func()                       // powers it off
	Clock func(time.Time)              // is told each time that the clock is set to; nil for nobody
	Room  func(left int64) (none bool) // is told of the host's room, or Measured; nil for nobody
}

// Measured is what [Init.Room] is told when the guest is only asked.
const Measured = math.MinInt64

var _ agent.System = Init{}

// Configure is part of [agent.System]: it waits for the clock.
func (i Init) Configure(_ *protocol.Configure, clock func() (time.Time, error)) (*protocol.Configured, error) {
	return &protocol.Configured{}, i.SetClock(clock)
}

// SetClock is part of [agent.System].
func (i Init) SetClock(clock func() (time.Time, error)) error {
	now, err := clock()
	if err == nil && i.Clock != nil {
		i.Clock(now)
	}
	return err
}

// Measure is part of [agent.System].
func (i Init) Measure() (full bool, err error) { return i.Room != nil && i.Room(Measured), nil }

// Limit is part of [agent.System].
func (i Init) Limit(left, _ int64) error {
	if i.Room != nil {
		i.Room(left)
	}
	return nil
}

// Changes is part of [agent.System].
func (Init) Changes(io.Writer) error { return nil }

// Unpack is part of [agent.System].
func (Init) Unpack(_ *protocol.Unpack, archive io.Reader) error {
	_, err := io.Copy(io.Discard, archive)
	return err
}

// NextLayer is part of [agent.System].
func (Init) NextLayer(*protocol.Layer) error { return nil }

// Share is part of [agent.System].
func (Init) Share(string) (io.ReadWriteCloser, error) { return nil, errors.ErrUnsupported }

// Sync is part of [agent.System].
func (Init) Sync() error { return nil }

// PowerOff is part of [agent.System].
func (i Init) PowerOff() { i.Off() }
