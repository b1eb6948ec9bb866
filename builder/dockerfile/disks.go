package dockerfile

import "sync"

// disks are the cache mounts that VMs of this build have.
type disks struct {
	mu   sync.Mutex
	byID map[string]*sync.Mutex
}

// lockDisks waits until no other stage has one of some disks, which are sorted.
func (b *build) lockDisks(ids []string) (unlock func()) {
	var held []*sync.Mutex
	for _, id := range ids {
		b.disks.mu.Lock()
		if b.disks.byID == nil {
			b.disks.byID = map[string]*sync.Mutex{}
		}
		m := b.disks.byID[id]
		if m == nil {
			m = new(sync.Mutex)
			b.disks.byID[id] = m
		}
		b.disks.mu.Unlock()
		m.Lock()
		held = append(held, m)
	}
	return func() {
		for _, m := range held {
			m.Unlock()
		}
	}
}
