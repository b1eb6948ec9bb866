package runtime

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestRelay(t *testing.T) {
	const usr, term, intr = syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT
	tests := []struct {
		name   string
		send   []syscall.Signal
		wait   time.Duration // after the last one
		passed int
		err    error
	}{
		{"none", nil, time.Hour, 0, nil},
		{"one, within the grace", []syscall.Signal{term}, StopGrace - time.Second, 1, nil},
		{"one, and the grace is over", []syscall.Signal{term}, StopGrace + time.Second, 1, Killed{term}},
		{"two", []syscall.Signal{term, intr}, 0, 1, Killed{intr}},
		{"those that ask for no end", []syscall.Signal{usr, usr, usr}, time.Hour, 3, nil},
		{"between the two", []syscall.Signal{usr, term, usr, intr}, 0, 3, Killed{intr}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				signals, begin := make(chan syscall.Signal), make(chan struct{})
				passed := relay(ctx, signals, begin, cancel)
				synctest.Wait()
				select {
				case signals <- term:
					t.Error("a signal was taken before the command began")
				default:
				}
				close(begin)
				for _, s := range tt.send {
					synctest.Wait()
					select {
					case signals <- s:
					default:
						t.Errorf("%v was not taken", s)
					}
				}
				time.Sleep(tt.wait)
				synctest.Wait()
				if err := context.Cause(ctx); !errors.Is(err, tt.err) || len(passed) != tt.passed {
					t.Errorf("cause %v, %d passed; want %v, %d", err, len(passed), tt.err, tt.passed)
				}
			})
		})
	}
}
