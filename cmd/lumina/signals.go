package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// watchSignals offers the signals that a terminal or another program sends to the command in
// a VM, which takes them from the returned channel while it runs. A signal that it does not
// take cancels; a second one ends the program without waiting for the clean-up.
func watchSignals(cancel context.CancelCauseFunc) <-chan syscall.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	offered := make(chan syscall.Signal)
	go func() {
		cancelled := false
		var seen twins
		for s := range signals {
			number := s.(syscall.Signal)
			if seen.twin(number, time.Now()) {
				continue
			}
			select {
			case offered <- number:
				continue
			default:
			}
			if cancelled {
				os.Exit(128 + int(number))
			}
			cancelled = true
			cancel(interrupted{number})
		}
	}()
	return offered
}

// twins takes two signals that come at once for one: timeout(1) sends its signal to the
// process and then to the process's group, and a second one kills.
type twins struct {
	last syscall.Signal
	at   time.Time
}

// atOnce is faster than somebody presses a key twice.
const atOnce = 50 * time.Millisecond

// twin says whether a signal is the last one once more. Those that do not ask for an end
// are each told.
func (t *twins) twin(s syscall.Signal, now time.Time) bool {
	again := s == t.last && now.Sub(t.at) < atOnce && s != syscall.SIGUSR1 && s != syscall.SIGUSR2
	t.last, t.at = s, now
	return again
}
