package network

import (
	"sync/atomic"
	"syscall"
)

// Bounds of what a guest makes this process hold.
const (
	// maxFlows is how many connections a guest may have at once.
	maxFlows = 4096
	// maxLookups is how many questions to the resolver.
	maxLookups = 64
	// minFlows is what there is however few descriptors the process may have.
	minFlows = 16
)

// flowsOpen counts the connections of all networks of the process: descriptors are
// the process's.
var flowsOpen atomic.Int64

// flows bounds the connections of a guest.
type flows struct {
	open       atomic.Int64
	most       int64 // of the guest
	mostOfHost int64 // of all guests of the process
}

// take counts a connection, if there may be one more.
func (f *flows) take() bool {
	if f.open.Add(1) <= f.most {
		if flowsOpen.Add(1) <= f.mostOfHost {
			return true
		}
		flowsOpen.Add(-1)
	}
	f.open.Add(-1)
	return false
}

// give ends one that was taken.
func (f *flows) give() {
	f.open.Add(-1)
	flowsOpen.Add(-1)
}

// limits says how many connections there may be, of one guest and of all guests of
// the process, and how many questions. Half of the descriptors are for the rest:
// the session's own sockets, what is copied, the next exec. A connection has one
// descriptor, a question up to two.
func limits(descriptors uint64) (guest, process int64, lookups int) {
	half := int64(min(descriptors, 1<<20) / 2)
	lookups = int(max(min(half/8, maxLookups), 8))
	process = max(half-2*int64(lookups), minFlows)
	return min(process, maxFlows), process, lookups
}

// fewFlows is how many connections have all the room that they can use.
const fewFlows = 32

// room is how many bytes a further connection may hold in each direction where that
// many are open; 0 for what the stack finds best. A guest that does not read what it
// asked for, on each of all its connections, takes memory of this process.
func room(open int64) int64 {
	const together, least, most = 64 << 20, 32 << 10, 1 << 20
	if open <= fewFlows {
		return 0
	}
	return min(max(together/open, least), most)
}

// descriptors is how many the process may have.
func descriptors() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return l.Cur
}
