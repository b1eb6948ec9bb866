// Lumina runs commands in virtual machines, as subprocess.run() runs them in
// processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/runtime/driver"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// hostDriver is this system's, as the environment asks for it.
func hostDriver() (vm.Driver, error) {
	d, err := driver.New(driver.Options{Accelerator: os.Getenv("LUMINA_ACCEL"), ControlGroup: os.Getenv("LUMINA_CGROUP")})
	if errors.Is(err, driver.ErrOptions) {
		return nil, usageError{fmt.Errorf("LUMINA_ACCEL: %w", err)}
	}
	return d, err
}

func main() {
	keepInherited()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := watchSignals(cancel)
	os.Exit(execute(ctx, &environment{
		ctx:       ctx,
		program:   os.Args[0],
		args:      os.Args[1:],
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		getenv:    os.Getenv,
		lookupEnv: os.LookupEnv,
		signals:   signals,
		driver:    hostDriver,
		session:   sessionProcess,
		template:  templateProcess,
	}))
}
