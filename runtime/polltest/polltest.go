// Package polltest is for tests that wait for what tells nobody that it is so: a process
// of somebody else's, a file, /proc. Where there is an event, a test waits for that.
package polltest

import (
	"testing"
	"time"
)

const (
	pause = 2 * time.Millisecond // between two looks, at least
	limit = 2 * time.Minute      // only ends a hang, on a host however busy
)

// Until looks until look returns no error. When it still does after a generous time, the
// test fails with it.
func Until(t testing.TB, look func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		began := time.Now()
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %v", limit, err)
		}
		// A look that starts a process leaves most of the CPU to what it waits for.
		time.Sleep(max(pause, 3*time.Since(began)))
	}
}

// True is Until for what is so or not; what says it in a sentence.
func True(t testing.TB, what string, is func() bool) {
	t.Helper()
	Until(t, func() error {
		if !is() {
			return notSo(what)
		}
		return nil
	})
}

type notSo string

func (n notSo) Error() string { return "it is not so that " + string(n) }
