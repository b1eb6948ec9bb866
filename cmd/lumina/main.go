// Lumina runs commands in virtual machines, as subprocess.run() runs them in
// processes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	keepInherited()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		cancel(interrupted{(<-signals).(syscall.Signal)})
		// A second signal does not wait for the first one's clean-up.
		os.Exit(128 + int((<-signals).(syscall.Signal)))
	}()
	os.Exit(execute(ctx, &environment{
		args:   os.Args[1:],
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		getenv: os.Getenv,
	}))
}
