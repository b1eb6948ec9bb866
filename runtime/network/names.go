package network

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	nameMemory  = time.Hour // how long after its resolution a name opens an address
	maxNames    = 8192      // addresses that are remembered
	maxPerEntry = 16        // names of one address
)

// names remembers which names the guest resolved to an address.
type names struct {
	mu    sync.Mutex
	table map[netip.Addr][]resolved
}

type resolved struct {
	name string
	at   time.Time
}

func (t *names) add(a netip.Addr, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.table == nil {
		t.table = map[netip.Addr][]resolved{}
	}
	if _, ok := t.table[a]; !ok && len(t.table) >= maxNames {
		for old := range t.table {
			delete(t.table, old) // any: a guest with that many is up to something
			break
		}
	}
	list := slices.DeleteFunc(t.table[a], func(r resolved) bool { return r.name == name || now.Sub(r.at) > nameMemory })
	if len(list) >= maxPerEntry {
		list = list[1:]
	}
	t.table[a] = append(list, resolved{name, now})
}

// allowed says whether a name that the policy allows was resolved to an address.
func (t *names) allowed(p *Policy, to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.table[to.Addr()], func(r resolved) bool {
		return time.Since(r.at) <= nameMemory && p.allowsName(r.name, to.Port())
	})
}

// opens is allowed for what the port alone allows.
func (t *names) opens(p *Policy, to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.table[to.Addr()], func(r resolved) bool {
		return time.Since(r.at) <= nameMemory && p.opens(r.name, to.Port())
	})
}

// one is a name that was resolved to an address; "" when there is none.
func (t *names) one(a netip.Addr) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if list := t.table[a]; len(list) > 0 {
		return list[len(list)-1].name
	}
	return ""
}
