// Command full builds the kernel with every driver, see kernelconfig.Full, and writes
// it, as EFI starts it, to the file that is its argument. What lumina images export
// needs is then in the cache of kernels.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"

	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/durable"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := build(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kernel-config/full:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the name of a file, have %d arguments", len(args))
	}
	fragment, err := kernelconfig.Full("amd64", "")
	if err != nil {
		return err
	}
	built, err := kernelconfig.Build(ctx, "amd64", fragment, os.Getenv("LUMINA_CACHE"), os.Stderr)
	if err != nil {
		return err
	}
	var kernel bytes.Buffer
	if _, err := built.EFI.WriteTo(&kernel); err != nil {
		return err
	}
	return durable.Replace(args[0], kernel.Bytes(), 0o644)
}
