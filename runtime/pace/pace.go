// Package pace is for downloads and uploads: it ends a connection that brings too
// little, so that no server can keep a download waiting for ever, counts what comes,
// and waits between two tries.
package pace

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Least is what has to come in each period of waiting, in bytes: with a period of a
// minute 1 KiB a second, which every connection has that is good for images.
const Least = 60 << 10

// Reader reads what another one brings. What counts is the time that passes in Read:
// who reads may take as long as it likes between.
type Reader struct {
	r      io.Reader
	period time.Duration
	timer  *time.Timer
	waited time.Duration // in this period
	came   atomic.Int64  // bytes in it
}

// NewReader makes a Reader. When less than Least has come in a period, slow is
// called, which has to end what r waits for.
func NewReader(r io.Reader, period time.Duration, slow func(error)) *Reader {
	p := &Reader{r: r, period: period}
	p.timer = time.AfterFunc(period, func() {
		if p.came.Load() == 0 {
			slow(fmt.Errorf("nothing came for %v", period))
			return
		}
		slow(fmt.Errorf("fewer than %d KiB came in %v", Least>>10, period))
	})
	p.timer.Stop()
	return p
}

func (p *Reader) Read(b []byte) (int, error) {
	begun := time.Now()
	p.timer.Reset(p.period - p.waited)
	n, err := p.r.Read(b)
	p.timer.Stop()
	p.waited += time.Since(begun)
	if p.came.Add(int64(n)) >= Least {
		p.waited = 0
		p.came.Store(0)
	}
	return n, err
}
