package app

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime"
)

func newTestTerminal() (*terminal, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	one := &terminal{over: ctx.Done(), pages: map[*attached]struct{}{}}
	one.news = sync.NewCond(&one.mu)
	context.AfterFunc(ctx, one.wake)
	return one, cancel
}

// A flood of output reaches a page whole, with never more on its way than the window,
// and a page that comes later has its end.
func TestTerminalLosesNothing(t *testing.T) {
	one, cancel := newTestTerminal()
	defer cancel()
	p := one.attach(0)
	want := bytes.Repeat([]byte("0123456789abcde\n"), 10<<20/16)
	go func() {
		for b := want; len(b) > 0; {
			n := min(len(b), 5000)
			if _, err := one.Write(b[:n]); err != nil {
				t.Error(err)
			}
			b = b[n:]
		}
		one.mu.Lock()
		one.ended = true
		one.news.Broadcast()
		one.mu.Unlock()
	}()
	var got []byte
	for b := one.next(p); b != nil; b = one.next(p) {
		if got = append(got, b...); p.sent-p.taken > window+chunk {
			t.Fatalf("%d bytes are on their way", p.sent-p.taken)
		}
		one.took(p, int64(len(got)))
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came of %d", len(got), len(want))
	}
	later := one.attach(0)
	got = got[:0]
	for b := one.next(later); b != nil; b = one.next(later) {
		got = append(got, b...)
		one.took(later, later.sent)
	}
	if len(got) < kept || !bytes.HasSuffix(want, got) {
		t.Errorf("a later page has %d bytes", len(got))
	}
	if again := one.attach(int64(len(want))); one.next(again) != nil {
		t.Error("a page that had all of it gets more")
	}
}

// A program that waits for a page goes on when that goes, and what is typed does not
// wait for the output.
func TestTerminalWaits(t *testing.T) {
	one, cancel := newTestTerminal()
	defer cancel()
	p := one.attach(0)
	written := make(chan struct{})
	go func() {
		for range 3 {
			_, _ = one.Write(make([]byte, window))
		}
		close(written)
	}()
	if !one.obey(t.Context(), p, websocket.MessageBinary, []byte("typed")) {
		t.Error("what is typed is refused")
	}
	b := make([]byte, 10)
	if n, err := one.Read(b); string(b[:n]) != "typed" || err != nil {
		t.Errorf("the program reads %q, %v", b[:n], err)
	}
	select {
	case <-written:
		t.Error("the program did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	one.detach(p)
	<-written
	if one.next(p) != nil {
		t.Error("a page that has gone gets more")
	}
	if one.enter(make([]byte, maxTyped+1)) {
		t.Error("what is typed has no bound")
	}
}

// A terminal that is closed while its program floods it: a page that came late, and is
// behind, has what there was to the byte, and then the end.
func TestTerminalIsClosedInAFlood(t *testing.T) {
	one, cancel := newTestTerminal()
	want := make([]byte, 0, 47*chunk)
	for i := range 47 {
		b := bytes.Repeat([]byte{byte(i)}, chunk)
		want = append(want, b...)
		if _, err := one.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	p := one.attach(0) // a page that is loaded again
	got := one.next(p)
	one.took(p, p.sent)
	cancel()
	for range 64 {
		if n, err := one.Write(make([]byte, chunk)); n != chunk || err != nil {
			t.Fatal(n, err)
		}
	}
	one.end(runtime.Exit{}, context.Canceled)
	for b := one.next(p); b != nil; b = one.next(p) {
		got = append(got, b...)
		one.took(p, p.sent)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the page has %d bytes of %d", len(got), len(want))
	}
}
