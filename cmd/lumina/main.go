// Lumina runs commands in virtual machines, as subprocess.run() runs them in
// processes.
package main

import (
	"context"
	"os"
)

func main() {
	keepInherited()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := watchSignals(cancel)
	os.Exit(execute(ctx, &environment{
		program:   os.Args[0],
		args:      os.Args[1:],
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		getenv:    os.Getenv,
		lookupEnv: os.LookupEnv,
		signals:   signals,
	}))
}
