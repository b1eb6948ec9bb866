package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// watchSignals offers the signals that a terminal or another program sends to the command in
// a VM, which takes them from the returned channel while it runs. One that nobody takes
// cancels, and the next one such does not wait for what that cleans up.
func watchSignals(cancel context.CancelCauseFunc) <-chan syscall.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	offered := make(chan syscall.Signal)
	go func() {
		cancelled := false
		for s := range signals {
			number := s.(syscall.Signal)
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
