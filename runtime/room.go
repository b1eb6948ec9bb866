package runtime

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
)

// Disks are larger than the room that the host has for them. When its disk is about
// to be full, its guests are told how much they may still take: their programs get
// ENOSPC, and their file systems, which break where a write of their own fails, stay
// whole.
const (
	// lowRoom is how much room is little, in bytes.
	lowRoom = 512 << 20
	// fastestFill is how fast the space can shrink, in bytes a second. It is not checked
	// before it can have become little.
	fastestFill = 2 << 30
	// roomPeriod is how often it is looked at when it is little, or could be.
	roomPeriod = 100 * time.Millisecond
	// allowance is what a guest may take without room, in bytes, for its programs to go on
	// that want a few small files; enoughForAll is what has to be free for that.
	allowance    = 4 << 20
	enoughForAll = 16 << 20
	// roomPatience is how long a guest may take.
	roomPatience = time.Second
)

// room is what a VM's disks may still take of the host's.
type room struct {
	dirs    []string // where the disks are
	reserve int64    // what stays free for others
	free    func(dir string) (int64, error)

	mu      sync.Mutex
	limited bool   // the guest has a limit
	silent  bool   // it did not answer when it was asked last
	never   bool   // its agent knows of no limit
	none    bool   // it has reached its limit
	report  string // that it has, once
}

func (r *Runtime) newRoom(reserve int64) room {
	return room{
		dirs:    []string{filepath.Join(r.home, "runs"), filepath.Join(r.home, "volumes")},
		reserve: keptFree(reserve),
		free:    r.freeSpace,
	}
}

// left is the free space beyond the reserve; a huge number if it is unknown.
func (r *room) left() int64 {
	least := int64(math.MaxInt64)
	for _, dir := range r.dirs {
		if free, err := r.free(dir); err == nil {
			least = min(least, free-r.reserve)
		}
	}
	return least
}

// pause is until when room may have become little.
func pause(left int64) time.Duration {
	if left < lowRoom {
		return roomPeriod
	}
	return min(roomPeriod+time.Duration(float64(left-lowRoom)/fastestFill*float64(time.Second)), time.Minute)
}

// keepRoom has the guest know of the host's room while the VM runs.
func (v *VM) keepRoom() {
	left := v.room.left()
	for {
		v.room.mu.Lock()
		v.limit(left)
		never := v.room.never
		v.room.mu.Unlock()
		if never {
			return
		}
		timer := time.NewTimer(pause(left))
		select {
		case <-timer.C:
		case <-v.machine.Done():
			timer.Stop()
			return
		}
		left = v.room.left()
	}
}

// limit tells the guest how much there is, when that is little; it needs the lock. What
// a guest has written to memory only, the host does not see: each is asked each time.
func (v *VM) limit(left int64) {
	r := &v.room
	if left >= lowRoom {
		if r.limited && v.ask(func(ctx context.Context) error { return v.setLimit(ctx, -1, 0) }) {
			r.limited = false
		}
		return
	}
	if v.ask(func(ctx context.Context) error {
		conn, err := v.machine.Dial(ctx)
		if err != nil {
			return err
		}
		none, err := client.Measure(ctx, conn)
		if err != nil {
			return err
		}
		if r.none = none; none {
			r.report = "the host's disk is full, but for what is kept free: the VM's disks took no more, and the guest got the error"
		}
		// Only now: what the guest has written since it noted what it had is in both.
		left, least := r.left(), int64(0)
		if left+r.reserve >= enoughForAll {
			least = allowance
		}
		return v.setLimit(ctx, max(0, left), least)
	}) {
		r.limited = true
	}
}

func (v *VM) setLimit(ctx context.Context, left, least int64) error {
	conn, err := v.machine.Dial(ctx)
	if err != nil {
		return err
	}
	return client.Limit(ctx, conn, left, least)
}

// ask does something that the guest answers, and says whether it has. One that has not
// is asked again; one whose agent knows nothing of it is not.
func (v *VM) ask(do func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), roomPatience)
	defer cancel()
	err := do(ctx)
	var refused *protocol.Error
	if errors.As(err, &refused) && refused.Code == protocol.CodeRequest {
		v.room.never = true
	}
	v.room.silent = err != nil
	return err == nil
}

// roomReport says that the guest had no more room, since the host had none, and whether it
// has none now.
func (v *VM) roomReport() (report string, now bool) {
	r := &v.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limited && !r.silent {
		v.limit(r.left()) // it may have reached its limit just now
	}
	return r.report, r.limited && r.none
}
