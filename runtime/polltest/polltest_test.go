package polltest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fatal is a test that remembers how it failed.
type fatal struct {
	testing.TB
	said string
}

func (*fatal) Helper() {}

func (f *fatal) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// What becomes so ends the wait, what never does ends it with the last error, and who takes
// long to look waits longer for the next time.
func TestUntil(t *testing.T) {
	for _, tt := range []struct {
		name        string
		takes, soon time.Duration // of each look; when it becomes so, 0: never
		most        int           // looks
		said        string
	}{
		{"at once", 0, time.Nanosecond, 2, ""},
		{"soon", 0, 9 * time.Millisecond, 6, ""},
		{"slow looks", 100 * time.Millisecond, time.Second, 4, ""},
		{"never", time.Second, 0, 32, "after 2m0s: still not"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, looks, f := time.Now(), 0, &fatal{TB: t}
				done := make(chan struct{})
				go func() {
					defer close(done)
					Until(f, func() error {
						looks++
						time.Sleep(tt.takes)
						if tt.soon > 0 && time.Since(began) >= tt.soon {
							return nil
						}
						return errors.New("still not")
					})
				}()
				<-done
				if looks > tt.most || !strings.HasPrefix(f.said, tt.said) || (f.said == "") != (tt.said == "") {
					t.Errorf("%d looks, it said %q; want at most %d, and %q", looks, f.said, tt.most, tt.said)
				}
			})
		})
	}
}
