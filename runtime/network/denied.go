package network

import (
	"sync"
	"sync/atomic"
	"time"
)

// Denied is an attempt of a guest to reach what it may not.
type Denied struct {
	Time        time.Time `json:"time"` // of the last one
	Protocol    string    `json:"protocol"`
	Destination string    `json:"destination"`
	// Name is what the guest called it, where it said so.
	Name   string `json:"name,omitempty"`
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

// maxDenied is how many different attempts are remembered; further ones are
// only counted.
const maxDenied = 200

type deniedLog struct {
	mu    sync.Mutex
	list  []Denied
	index map[Denied]int // by all but Time and Count
	more  int64
}

func (l *deniedLog) add(d Denied) {
	if len(d.Name) > 255 {
		d.Name = d.Name[:255]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.index[d]
	if !ok {
		if len(l.list) == maxDenied {
			l.more++
			return
		}
		if l.index == nil {
			l.index = map[Denied]int{}
		}
		i = len(l.list)
		l.index[d] = i
		l.list = append(l.list, d)
	}
	l.list[i].Count++
	l.list[i].Time = time.Now()
}

// Metrics are a guest's traffic, as it sees it.
type Metrics struct {
	ReceivedBytes   int64 `json:"rx_bytes"`
	ReceivedPackets int64 `json:"rx_packets"`
	SentBytes       int64 `json:"tx_bytes"`
	SentPackets     int64 `json:"tx_packets"`
	Connections     int64 `json:"connections"`
	Denied          int64 `json:"denied"`
}

// Sub is what there was more of than in before.
func (m Metrics) Sub(before Metrics) Metrics {
	return Metrics{
		ReceivedBytes: m.ReceivedBytes - before.ReceivedBytes, ReceivedPackets: m.ReceivedPackets - before.ReceivedPackets,
		SentBytes: m.SentBytes - before.SentBytes, SentPackets: m.SentPackets - before.SentPackets,
		Connections: m.Connections - before.Connections, Denied: m.Denied - before.Denied,
	}
}

type counters struct {
	rxBytes, rxPackets, txBytes, txPackets, connections, denied atomic.Int64
}
