package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func newPoolCommand(env *environment) *cobra.Command {
	return newGroup("pool", "Run a command many times, in several VMs at once", newPoolRunCommand(env))
}

func newPoolRunCommand(env *environment) *cobra.Command {
	var vm vmFlags
	var flags imageCommandFlags
	size, count := atLeastOne(2), atLeastOne(1)
	c := &cobra.Command{
		Use:   "run --size N --count C [COMMAND] | run … -- PROG [ARG…]",
		Short: "Run a command C times, each in a VM of its own, N at once",
		Long: `Run a command C times, each in a VM of its own, N at once. Each result is a JSON
object on a line of its own, printed when that run ends. Runs are numbered from 0:
LUMINA_RUN in the command's environment, and "run" in the result. The exit code is 0
when that of every run is, else 1.`,
		RunE: func(c *cobra.Command, args []string) error {
			command, err := flags.command(c, env, args, c.ArgsLenAtDash())
			if err != nil {
				return err
			}
			options, err := vm.options(env)
			if err != nil {
				return err
			}
			return runPool(c.Context(), env, &vm, runtime.RunOptions{VM: options, Command: command}, int(size), int(count))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().Var(&size, "size", "how many VMs at once")
	c.Flags().Var(&count, "count", "how many runs")
	vm.register(c, env)
	env.registerJSON(c.Flags(), c)
	flags.register(c)
	return c
}

func runPool(ctx context.Context, env *environment, vm *vmFlags, options runtime.RunOptions, size, count int) error {
	r, err := env.openRuntime()
	if err != nil {
		return err
	}
	if err := vm.obtain(ctx, env, r.Home(), &options.VM); err != nil {
		return err
	}
	if err := checkCommand(r.Images, options); err != nil {
		return err
	}
	lines := lineWriter{w: env.stdout}
	numbers := make(chan int)
	var wg sync.WaitGroup
	var failed atomic.Bool
	var later sync.Once
	for range min(size, count) {
		wg.Go(func() {
			for n := range numbers {
				ok, trace := poolRun(ctx, env, r, options, n, &lines)
				later.Do(func() { makeTemplateLater(env, options.VM, trace.Cold) })
				if !ok {
					failed.Store(true)
				}
			}
		})
	}
feed:
	for n := range count {
		select {
		case numbers <- n:
		case <-ctx.Done():
			break feed
		}
	}
	close(numbers)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if failed.Load() {
		return exitCode(1)
	}
	return nil
}

// checkCommand says what is wrong with a command in VMs of an image: once, and not
// in each of them.
func checkCommand(images *image.Store, options runtime.RunOptions) error {
	h, err := images.Open(options.VM.Image)
	if err != nil {
		return &runtime.Error{Kind: runtime.ConnectionFailed, Err: err}
	}
	defer h.Close()
	if err := options.Command.Check(h.Config); err != nil {
		return usageError{err}
	}
	return nil
}

// poolRun prints the result of one run, and says whether its command succeeded.
func poolRun(ctx context.Context, env *environment, r *runtime.Runtime, options runtime.RunOptions, n int, lines *lineWriter) (bool, runtime.Trace) {
	report := &report{env: env, format: formatJSON, start: time.Now()}
	options.Command.Stdio = runtime.Stdio{Stdout: &report.stdout, Stderr: &report.stderr}
	options.Command.Env = append(options.Command.Env[:len(options.Command.Env):len(options.Command.Env)], fmt.Sprintf("LUMINA_RUN=%d", n))
	result, err := r.Run(ctx, options)
	report.network, report.boot = result.Network, result.Boot
	row := envelope{{"run", n}}
	if err != nil {
		row = append(row, report.failure(env.nameUsers(err))...)
	} else {
		row = append(append(row, report.output("")...), report.success(result.ExitCode)...)
	}
	printErr := lines.print(row)
	return err == nil && printErr == nil && result.ExitCode == 0, result.Trace
}
